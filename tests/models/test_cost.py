"""Counts against the papers' arithmetic, for every variant."""

import pathlib
import re

import flax.linen as nn
import jax
import pytest

from docs.tools import models_page
from mlpvision import models
from mlpvision.models import cost, published

# In billions at 224 pixels: the papers' arithmetic, worked out without this code.
_STATED = {
  "mixer_s32": 1.00, "mixer_s16": 3.78, "mixer_b32": 3.24, "mixer_b16": 12.60, "mixer_l32": 11.25,
  "mixer_l16": 44.55, "mixer_h14": 120.99, "s2mlp_wide": 13.988, "s2mlp_deep": 10.462,
  "asmlp_mobile": 1.320, "asmlp_tiny": 4.350, "asmlp_small": 8.512, "asmlp_base": 15.126,
  "ff_tiny": 1.44, "ff_base": 14.13, "ff_large": 10.71,
  "resmlp_s12": 3.01, "resmlp_s24": 5.96, "resmlp_s36": 8.91, "resmlp_b24_16": 23.02, "resmlp_b24_8": 100.2,
}  # fmt: skip


def _vit(width, depth):
  """Per block 12 N C^2 for the projections and the MLP, 2 N^2 C for attention; then the patches."""
  return (depth * (12 * 197 * width**2 + 2 * 197**2 * width) + 196 * 768 * width) / 1e9


def _swin(width, depths, window, size):
  """Swin's Eq. 2 per block, with the MLP: 12 hw C^2 + 2 M^2 hw C; then mergings (4C to 2C) and patches."""
  side, total = size // 4, (size // 4) ** 2 * 48 * width
  for stage, depth in enumerate(depths):
    if stage:
      side, total, width = side // 2, total + (side // 2) ** 2 * 8 * width**2, 2 * width
    total += depth * (12 * side**2 * width**2 + 2 * window**2 * side**2 * width)
  return total / 1e9


_SHORT, _LONG = (2, 2, 6, 2), (2, 2, 18, 2)
MACS = _STATED | {
  "vit_s16": _vit(384, 12),
  "vit_b16": _vit(768, 12),
  "vit_l16": _vit(1024, 24),
  "swin_mobile": _swin(64, (2, 2, 2, 2), 7, 224),
  "swin_tiny": _swin(96, _SHORT, 7, 224),
  "swin_small": _swin(96, _LONG, 7, 224),
  "swin_base": _swin(128, _LONG, 7, 224),
  "swin_tiny_384": _swin(96, _SHORT, 12, 384),
  "swin_small_384": _swin(96, _LONG, 12, 384),
  "swin_base_384": _swin(128, _LONG, 12, 384),
}


_TABLE = pathlib.Path(__file__).parent.parent.parent / "docs" / "models.md"


@pytest.mark.parametrize("name", MACS)
def test_macs(name):
  """In the committed table, which is what the code counts, as the next test has it."""
  size = 384 if name.endswith("_384") else 224
  (row,) = re.findall(rf"^\| `{name}` \| {size} \| [\d,]+ \| ([\d.]+) G \|", _TABLE.read_text(), re.MULTILINE)
  assert float(row) == pytest.approx(MACS[name], rel=0.005)


def test_the_committed_table_is_current():
  assert _TABLE.read_text() == models_page.text(models_page.count())


def test_all_variants_are_counted_and_in_the_table():
  assert set(MACS) == set(models.MODELS) == {row.name for row in published.ROWS}


def test_larger_images():
  assert "| `vit_b16` | 384 | 86,859,496 | 55.484 G |" in _TABLE.read_text()
  assert "| `asmlp_base` | 384 | 87,752,808 | 44.450 G |" in _TABLE.read_text()
  wide = models.create("s2mlp_wide", num_classes=None, num_blocks=1)
  assert cost.count(wide, (112, 224))["macs"] * 2 == cost.count(wide, 224)["macs"]


def test_remat_is_not_counted_twice():
  assert cost.count(models.create("s2mlp_wide", num_blocks=1, remat="block")) == cost.count(
    models.create("s2mlp_wide", num_blocks=1)
  )


def test_grouped_convolution_and_loops():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Conv(6, (3, 3), feature_group_count=3, padding="VALID", use_bias=False)(x)  # 36 positions of 9 * 6
      kernel = self.param("kernel", nn.initializers.zeros_init(), (6, 6))
      return jax.lax.scan(lambda x, _: (x @ kernel, None), x, length=4)[0]  # 4 times 36 positions of 6 * 6

  assert cost.count(Net(), 8)["macs"] == 36 * 9 * 6 + 4 * 36 * 36


def test_command(command):
  code, output = command("-m", "mlpvision.cost", "--config=configs/s2mlp_wide.py")
  assert code == 0, output
  assert "72,241,384" in output
  assert "13,989,033,984" in output
