"""The papers' ablations as grids of runs, with the papers' numbers beside ours."""
