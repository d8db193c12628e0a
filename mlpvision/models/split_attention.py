"""Split attention over the branches of a token mixer (from ResNeSt, arXiv 2004.08955), which several families share."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlpvision.models import canvas, forms, layers

LAYOUTS = ("channel", "branch")
POOLS = ("mean", "sum")


class SplitAttention(nn.Module):
  """The branches' sum, weighted per example, branch and channel; K maps [B, H, W, C] -> [B, H, W, C].

  The weights are a softmax over the branches of an MLP of the branches' sum, pooled over the positions.

  Attributes:
    reduction: the MLP's hidden width is C / reduction, rounded down.
    layout: how the MLP's K * C outputs are numbered: "channel", K * channel + branch, as in the official codes of ViP
      and CycleMLP; "branch", C * branch + channel, as in S2-MLPv2's Eq. 3-4.
    bias: of the MLP's layers.
    pool: "mean" over the positions, or "sum".
  """

  reduction: int
  layout: str
  bias: bool
  kernel_init: Any
  pool: str = "mean"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, branches: tuple[jax.Array, ...], cells: jax.Array | None = None) -> jax.Array:
    """cells: valid rows and columns of the maps, see `canvas`; only these are pooled."""
    if self.layout not in LAYOUTS or self.pool not in POOLS:
      raise ValueError(f"unknown layout {self.layout!r} or pool {self.pool!r}: {LAYOUTS} and {POOLS} are known")
    (batch, height, width, channels), count = branches[0].shape, len(branches)
    pooled = canvas.masked(sum(branch.astype(jnp.float32) for branch in branches), cells).sum((1, 2))
    if self.pool == "mean":
      pooled = pooled / (height * width if cells is None else jnp.maximum(cells.prod(1, keepdims=True), 1))
    dense = dict(use_bias=self.bias, kernel_init=self.kernel_init, dtype=self.dtype)
    y = forms.gelu(layers.Dense(channels // self.reduction, **dense, name="Dense_0")(pooled))
    y = layers.Dense(count * channels, **dense, name="Dense_1")(y).astype(jnp.float32)
    if self.layout == "channel":
      weights = nn.softmax(y.reshape(batch, channels, count)).swapaxes(1, 2)
    else:
      weights = nn.softmax(y.reshape(batch, count, channels), axis=1)
    weights = weights.astype(self.dtype)[:, :, None, None, :]
    return sum(weights[:, k] * branch for k, branch in enumerate(branches))
