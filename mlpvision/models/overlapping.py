"""A pyramid whose stages begin with overlapping convolutions: CycleMLP's and PoolFormer's."""

from typing import ClassVar

from flax import linen as nn
import jax

from mlpvision.models import base, canvas


class OverlappingPyramid(base.Backbone):
  """The stages of a pyramid for any image size; a subclass chooses the block, and has the head.

  Attributes, in addition to those of every `Backbone`:
    patch_size: stride of the stem, 4 in all variants; its kernel has 2 * patch_size - 1 pixels.
    hidden_dim, depths, mlp_ratio: channels, blocks and hidden width / channels of each stage.
  """

  any_size: ClassVar[bool] = True

  patch_size: int = 4
  hidden_dim: tuple[int, ...] = (64, 128, 320, 512)
  depths: tuple[int, ...] = (2, 2, 4, 2)
  mlp_ratio: tuple[float, ...] = (4.0, 4.0, 4.0, 4.0)

  @property
  def size_divisor(self) -> int:
    """The patch size: `features` pads images to its multiples, and maps are halved rounding up."""
    return self.patch_size

  def stages(
    self, block: type[nn.Module], images: jax.Array, train: bool, sizes: jax.Array | None
  ) -> tuple[jax.Array, ...]:
    """images: float [B, H, W, 3] -> the map of each stage; sizes: as of `features`. Call it where modules are made."""
    self.check_stages()
    x, cells, stride, name = images, sizes, self.patch_size, "stem"
    drop_paths = iter(self.drop_paths(images.shape[0], train))
    maps = []
    for stage, (depth, channels, ratio) in enumerate(zip(self.depths, self.hidden_dim, self.mlp_ratio, strict=True)):
      x = base.strided(canvas.masked(x, cells), stride, channels, name, overlapping=True, dtype=self.dtype)
      cells = canvas.cells(cells, stride)
      for i in range(depth):
        module = self.block(block, f"stage_{stage}_block_{i}", mlp_ratio=ratio)
        x = module(x, train, next(drop_paths), cells)
      maps.append(x)
      stride, name = 2, f"merge_{stage}"
    return tuple(maps)
