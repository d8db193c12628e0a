"""AS-MLP's block on packed maps, for stages of few channels on TPU; the same values and gradients, see `packed`."""

from typing import Any

import jax
import jax.numpy as jnp

from mlpvision.models import canvas, forms, layers, packed


def applies(block: Any, x: jax.Array, train: bool) -> bool:
  """Whether `apply` can compute this `asmlp.ASBlock` of x [B, H, W, C], and registers would not be full without it."""
  return packed.pixels(*x.shape[2:]) > 1 and block.padding == "zero" and not (train and block.dropout)


def apply(block: Any, params: dict[str, Any], x: jax.Array, cells: jax.Array | None, kept: layers.Kept) -> jax.Array:
  """The block's result, [B, H, W, C] -> [B, H, W, C].

  Args:
    block: an `asmlp.ASBlock`; its options.
    params: its parameters.
    x: a map for which `applies` is True.
    cells: valid rows and columns of x, see `canvas`.
    kept: of both branches, see `layers.DropPath`.
  """
  count, channels = packed.pixels(*x.shape[2:]), x.shape[-1]
  drop_path, dtype = layers.DropPath(block.drop_path, parent=None), block.dtype
  mask = packed.pack_mask(canvas.mask(x.shape, cells), count, channels)
  shift, mlp = params["axial_shift"], params["channel_mixing"]

  def norm(x, params):
    return forms.group_norm(x, tiled(params["scale"]), tiled(params["bias"]), 1e-5, dtype, mask)

  def tiled(values):
    return jnp.tile(values, count)

  def dense(x, params, product=packed.product, **options):
    y = product(x, params["kernel"].astype(dtype), count, **options)
    return forms.saved(y + tiled(params["bias"]).astype(dtype))

  def shifted(y, axis, params):
    y = y if mask is None else jnp.where(mask, y, jnp.zeros((), y.dtype))
    options = dict(size=block.shift_size, axis=axis, dilation=block.dilation)
    return forms.gelu(dense(y, params, packed.shifted_product, **options))

  def axial_shift(y):
    y = forms.gelu(norm(dense(y, shift["conv1"]), shift["norm1"]))
    if block.connection == "parallel":
      y = shifted(y, 2, shift["conv2_1"]) + shifted(y, 1, shift["conv2_2"])
    else:
      y = shifted(shifted(y, 2, shift["conv2_1"]), 1, shift["conv2_2"])
    return dense(norm(y, shift["norm2"]), shift["conv3"])

  x = packed.pack(x, count)
  x = x + drop_path.dropped(axial_shift(norm(x, params["norm1"])), kept[0])
  y = dense(forms.gelu(dense(norm(x, params["norm2"]), mlp["Dense_0"])), mlp["Dense_1"])
  return packed.unpack(x + drop_path.dropped(y, kept[1]), count)
