"""The papers' ablations as grids of runs, compared with the papers' figures."""
