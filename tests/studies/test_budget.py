"""A budget: the width that holds it is the best one, and what cannot be held is refused."""

import pytest

from mlpvision import models
from mlpvision.errors import UserError
from mlpvision.models import cost
from studies import budget, grids, report

_BASE = dict(name="s2mlp_wide", num_blocks=2, hidden_dim=16, patch_size=14)


def _study(*changes, laptop=None):
  return grids.Study(
    "A title", "", "s2mlp_wide", laptop or {}, tuple(grids.Row(f"row {i}", c, None) for i, c in enumerate(changes))
  )


@pytest.mark.parametrize("kind", ["parameters", "macs"])
def test_no_other_width_is_closer(kind):
  study, counts = budget.fit(_study(dict(num_blocks=1)), _BASE, budget.Budget(kind), 28, on_laptop=True)
  (row,) = study.rows
  held = cost.count(models.create(**_BASE, num_classes=None), 28)[kind]
  by_width = {
    width: cost.count(models.create(**{**_BASE, "num_blocks": 1, "hidden_dim": width}, num_classes=None), 28)[kind]
    for width in range(4, 64, 4)
  }
  best = min(by_width, key=lambda width: abs(by_width[width] - held))
  assert row.label == f"row 0, {best} channels"
  assert row.model(True) == dict(num_blocks=1, hidden_dim=best)
  assert counts[row.label][kind] == by_width[best]
  assert best != _BASE["hidden_dim"]


def test_stages_keep_their_proportions():
  pyramid = dict(name="s2mlpv2_small7", hidden_dim=(16, 32), depths=(1, 1), mlp_ratio=(2.0, 2.0), patch_size=7)
  study, counts = budget.fit(_study(pyramid), {}, budget.Budget("parameters", 60_000), 28, on_laptop=False)
  small, large = study.rows[0].model(False)["hidden_dim"]
  assert large == 2 * small
  assert next(iter(counts.values()))["parameters"] == pytest.approx(60_000, rel=0.2)


def test_what_cannot_be_held():
  same = _study(dict(hidden_dim=8), dict(hidden_dim=32))
  with pytest.raises(UserError, match=r"row 1: at equal macs, this is the model of another row"):
    budget.fit(same, _BASE, budget.Budget("macs"), 28, on_laptop=True)
  with pytest.raises(UserError, match=r'give an amount: "macs:4\.2M"'):
    budget.fit(same, {}, budget.Budget("macs"), 28, on_laptop=True)


def test_forms():
  assert budget.parse("macs") == budget.Budget("macs", None)
  assert budget.parse("macs:4.2M") == budget.Budget("macs", 4_200_000)
  assert budget.parse("parameters:300") == budget.Budget("parameters", 300)
  for wrong in ("flops", "macs:", "macs:0", "macs:-1M", "parameters:4T", "macs:4.2m"):
    with pytest.raises(UserError, match="--budget="):
      budget.parse(wrong)


def test_the_page_has_the_costs_and_no_paper(tmp_path):
  study, counts = budget.fit(_study(dict(num_blocks=1)), _BASE, budget.Budget("macs"), 28, on_laptop=True)
  ((label, found),) = counts.items()
  options = dict(images="digits", made_by="`a command`, today.", counts=counts)
  text = report.write("tiny", study, {label: [80.0, 82.0]}, tmp_path, **options).read_text()
  assert "| setting | measured here | parameters | multiply-accumulates |" in text
  assert f"| {label} | 81.0 ± 1.4 | {found['parameters']:,} | {found['macs']:,} |" in text
  assert "paper" not in text
  assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
