"""Counts of every variant, compared with the papers' arithmetic."""

import pathlib
import re

from families import FAMILIES
import flax.linen as nn
import jax
import pytest

from docs.tools import models_page, published
from mlpvision import models
from mlpvision.models import cost

_PARAMETERS = {name: count for row in FAMILIES.values() for name, count in row.parameters.items()}
_MACS = {name: billions for row in FAMILIES.values() for name, billions in row.macs.items()}
_TABLE = pathlib.Path(__file__).parent.parent.parent / "docs" / "models.md"


def _committed(name, size):
  """(parameters, billions of MACs) in the committed table, which is what the code counts: see the next tests."""
  row = rf"^\| `{name}` \| {size} \| ([\d,]+) \| ([\d.]+) G \|"
  ((parameters, macs),) = re.findall(row, _TABLE.read_text(), re.MULTILINE)
  return int(parameters.replace(",", "")), float(macs)


@pytest.mark.slow
def test_the_committed_table_is_current():
  assert _TABLE.read_text() == models_page.text(models_page.count())


@pytest.mark.parametrize("name", ["mixer_b16", "swin_tiny", "vip_l7", "poolformer_s12"])
def test_one_block_of_each_stage_stands_for_all_in_the_table(name):
  depths = dict(num_blocks=3) if name == "mixer_b16" else dict(depths=(1, 2, 1, 3))
  model = models.create(name, **depths)
  assert models_page.counted(model, 224) == cost.count(model, 224)


@pytest.mark.parametrize("name", _MACS)
def test_parameters_and_macs(name):
  parameters, macs = _committed(name, 384 if name.endswith("_384") else 224)
  assert parameters == _PARAMETERS[name]
  assert macs == pytest.approx(_MACS[name], rel=0.005)


def test_all_variants_are_counted_and_in_the_table():
  assert set(_MACS) == set(models.MODELS) == {row.name for row in published.ROWS}


def test_larger_images():
  assert _committed("vit_b16", 384) == (86_859_496, 55.484)
  assert _committed("asmlp_base", 384)[1] == pytest.approx(44.45, rel=1e-3)
  wide = models.create("s2mlp_wide", num_blocks=2, num_classes=None)
  assert cost.count(wide, (112, 224))["macs"] * 2 == cost.count(wide, 224)["macs"]


def test_remat_is_not_counted_twice():
  plain, again = (models.create("s2mlp_wide", num_blocks=2, remat=remat) for remat in ("none", "block"))
  assert cost.count(again) == cost.count(plain)


def test_grouped_convolution_and_loops():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Conv(6, (3, 3), feature_group_count=3, padding="VALID", use_bias=False)(x)  # 36 positions of 9 * 6
      kernel = self.param("kernel", nn.initializers.zeros_init(), (6, 6))
      return jax.lax.scan(lambda x, _: (x @ kernel, None), x, length=4)[0]  # 4 times 36 positions of 6 * 6

  assert cost.count(Net(), 8)["macs"] == 36 * 9 * 6 + 4 * 36 * 36


def test_command(here):
  code, output = here("-m", "mlpvision.cost", "--config=configs/s2mlp_wide.py")
  assert code == 0, output
  assert "72,241,384" in output
  assert "13,989,033,984" in output
