"""S2-MLP (Yu et al., arXiv 2106.07477; WACV 2022). No official code or weights were released."""

from typing import Any, ClassVar

from flax import linen as nn
import jax

from mlpvision.models import base, canvas, forms, layers
from mlpvision.models.family import Family, isotropic
from mlpvision.models.shift import spatial_shift

# As in DeiT: the paper trains with the "DeiT strategy" and states no initialization.
_INIT = nn.initializers.normal(0.02)
NORMS = ("layer", "affine", "none")


def _norm(kind, affine_init, dtype, name):
  if kind not in NORMS:
    raise ValueError(f"unknown norm {kind!r}; one of {', '.join(NORMS)}")
  if kind == "layer":
    return layers.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)
  if kind == "affine":
    return layers.Affine(affine_init, dtype=dtype, name=name)
  return lambda x, factor=1.0: (x * factor).astype(dtype)


class S2Block(nn.Module):
  """A spatial-shift branch and a channel-MLP branch (Fig. 1); [B, H, W, C] -> [B, H, W, C].

  x + N(FC2(shift(GELU(FC1 x)))), then x + N(FC4(GELU(FC3 x))), with the norm N at the end or the start of the branch.
  """

  mlp_ratio: float
  directions: Any
  border: str
  norm: str
  norm_position: str
  affine_init: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, drop_path: layers.DropPath, cells: jax.Array | None = None
  ) -> jax.Array:
    dense = dict(kernel_init=_INIT, dtype=self.dtype)
    channels = x.shape[-1]

    def branch(y, i, inner, name):
      norm = _norm(self.norm, self.affine_init, self.dtype, name)
      if self.norm_position == "pre":
        return drop_path(inner(norm(y)), i)
      return norm(inner(y), drop_path.factor(y, i))

    def spatial(y):
      y = forms.gelu(layers.Dense(channels, **dense, name="spatial_fc1")(y))
      y = spatial_shift(y, self.directions, self.border, cells)
      return layers.Dense(channels, **dense, name="spatial_fc2")(y)

    def channel(y):
      hidden_dim = int(channels * self.mlp_ratio)
      return layers.Mlp(hidden_dim, self.dropout, **dense, name="channel_mixing")(y, train)

    x = x + branch(x, 0, spatial, "spatial_norm")
    return x + branch(x, 1, channel, "channel_norm")


class S2MLP(base.Backbone):
  """S2-MLP, for any image size that patch_size divides.

  Attributes, in addition to those of every `Backbone`:
    patch_size, num_blocks, hidden_dim, mlp_ratio: the paper's Table 2 (p, N, c, r).
    directions: a name in `shift.DIRECTIONS` (Table 7) or a sequence of (dy, dx).
    border: "keep" (Algorithm 1) or "zero" (as a depthwise convolution, Sec. 3.3).
    norm: "layer"; "affine", ResMLP's, in the deep variant (Sec. 4.1); or "none".
    norm_position: "post", at the end of each branch, as in Fig. 1 and in S2-MLPv2's Fig. 2; or "pre", at the start, as
      in most third-party ports.
    affine_init: initial scale of the blocks' affine norms; the paper states none, so it is ResMLP's for this depth.
    stem_norm: after the patch embedding (Sec. 3.2), with the choices of norm; ports often omit it ("none").

  The paper replaces layer norm by the affine transform in the deep variant, but does not say where. Here, it replaces
  every layer norm, also the stem's (initial scale 1). The paper does not state layer norm's epsilon; it is DeiT's 1e-6.
  """

  any_size: ClassVar[bool] = True

  patch_size: int = 16
  num_blocks: int = 12
  hidden_dim: int = 768
  mlp_ratio: float = 4.0
  directions: Any = "four"
  border: str = "keep"
  norm: str = "layer"
  norm_position: str = "post"
  affine_init: float = 1e-6
  stem_norm: str = "layer"

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    return_features: bool = False,
    sizes: jax.Array | None = None,
  ) -> base.Outputs:
    """images: float [B, H, W, 3], normalized -> float32 logits [B, num_classes]. sizes: only for `features`."""
    if self.norm_position not in ("post", "pre"):
      raise ValueError(f"unknown norm_position {self.norm_position!r}; 'post' or 'pre'")
    stem = dict(kernel_init=_INIT, bias_init=nn.initializers.zeros_init(), dtype=self.dtype)
    x = base.patch_embed(canvas.masked(images, sizes), self.patch_size, self.hidden_dim, **stem)
    x = _norm(self.stem_norm, 1.0, self.dtype, "stem_norm")(x)
    cells = canvas.cells(sizes, self.patch_size)
    for i, drop_path in enumerate(self.drop_paths(x.shape[0], train)):
      x = self.block(S2Block, f"block_{i}")(x, train, drop_path, cells)
    if return_features:
      return (x,)
    return base.classify(x.mean((1, 2)), self.num_classes, kernel_init=_INIT)


VARIANTS = {
  "s2mlp_wide": dict(patch_size=16, num_blocks=12, hidden_dim=768),
  "s2mlp_deep": dict(patch_size=16, num_blocks=36, hidden_dim=384, norm="affine", stem_norm="affine"),
}


def _arguments(shapes):
  without_norm = {} if "block_0/spatial_norm/scale" in shapes else dict(norm="none")
  without_stem_norm = {} if "stem_norm/scale" in shapes else dict(stem_norm="none")
  return isotropic(shapes) | without_norm | without_stem_norm


# No official weights were released, so weight files use our own names.
FAMILY = Family(S2MLP, VARIANTS, _arguments, free=("affine_init",))
