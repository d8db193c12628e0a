"""ViT's class token and position embedding."""

import goldens
import pytest

from mlpvision import weights
from mlpvision.models import vit


def test_without_a_head_gives_timms_class_token(tmp_path):
  _, _, arrays = goldens.read("vit_timm")
  model, params, _ = weights.load(goldens.write(tmp_path, "vit_timm"), num_classes=None, num_heads=4)
  cls = goldens.apply(model, params, arrays["input"])
  assert goldens.relative_error(cls, arrays["out/features"][:, 0]) < 1e-5


def test_position_embedding_follows_the_images():
  model = vit.ViT(patch_size=8, num_blocks=1, hidden_dim=48, num_heads=4)
  small, wide = goldens.shapes(model, 32), goldens.shapes(model, 32, 48)
  assert (small.pop("pos_embedding"), wide.pop("pos_embedding")) == ((1, 17, 48), (1, 25, 48))
  assert small == wide


def test_heads_must_divide_the_channels():
  with pytest.raises(ValueError, match="48 channels .* 5 heads"):
    goldens.shapes(vit.ViT(hidden_dim=48, num_heads=5, num_blocks=1), 32)
