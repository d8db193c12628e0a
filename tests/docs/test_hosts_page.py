"""Which hosts can feed their chips: arithmetic on the table of plans and on measured loaders."""

import json

from docs.tools import hosts_page

_PAGE = """# Performance
| `s2mlp_wide` | v5e:4x4 | 64 | 2.1, 2.3 of 15.75 | 5,398 | 30.6, 13 | 3 | 42.5 | 27, 16 | 64.2% | 24,000 | 4.4 |  |
| `s2mlp_wide` | v5p:2x2x2 | 128 | 4, 5 of 95.74 | 10,794 | 51.8, 34.7 | 3 | 45 | 23, 12 | 51.8% | 60,000 | 4.7 |  |
| `mask_rcnn_asmlp_tiny` | v5e:4x4 | 1 | 3, 4 of 15.75 | 2,169 | 12, 11 | 12 | 81 | 9, 9 | 10.1% | 197 | 2 |  |
<!-- hosts: begin -->
old
<!-- hosts: end -->
after
"""


def _result(main=500_000):
  """A loader of S²-MLP's images: the slowest of its rounds loads 150 images per CPU-second."""
  turns = [{"images": 800, "cpu": 4.0}, {"images": 600, "cpu": 4.0}]
  stages = [{"name": "read", "per_cpu_second": 9.0}, {"name": "main process", "per_cpu_second": main}]
  return {
    "pipeline": ["random_resized", [0.08, 1.0], "rand-m9-mstd0.5-inc1", 224],
    "stages": stages,
    "loaders": {"ours": turns},
  }


def test_a_host_of_four_chips_takes_its_share():
  rows = hosts_page.table(_PAGE, [_result()]).splitlines()[2:]
  assert rows == [  # and none of a recipe whose loading is not measured
    "| `s2mlp_wide` | v5e | 6,000 | 150 | 40 of 112 | 1% | yes |",
    "| `s2mlp_wide` | v5p | 30,000 | 150 | 200 of 208 | 6% | no |",
  ]


def test_a_main_process_can_be_too_slow():
  row = hosts_page.table(_PAGE, [_result(main=7_000)]).splitlines()[2]
  assert row.endswith("| 86% | no |")


def test_only_the_part_between_the_markers_is_written(tmp_path):
  page, result = tmp_path / "page.md", tmp_path / "result.json"
  page.write_text(_PAGE)
  result.write_text(json.dumps(_result()))
  hosts_page.main([str(page), "two cores", str(result)])
  before, written, after = page.read_text().partition(hosts_page.table(_PAGE, [_result()]))
  assert written
  assert before == _PAGE.partition("old")[0] + "Measured on two cores.\n\n"
  assert after == _PAGE.partition("old")[2]
