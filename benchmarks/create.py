"""Our models as PyTorch modules that compute the same: timm's, or plain ones in this directory."""

from functools import partial

import numpy as np
import torch
from torch import nn

from mlpvision.errors import UserError
from mlpvision.models import asmlp, mixer, naming, resmlp, s2mlp

_S2MLP_NAMES = naming.Table(
  "benchmarks/s2mlp.py",
  (
    ("stem", "stem", naming.CONV),
    ("stem_norm", "stem_norm", naming.NORM),
    ("blocks.{i}.spatial_fc1", "block_{i}/spatial_fc1", naming.DENSE),
    ("blocks.{i}.spatial_fc2", "block_{i}/spatial_fc2", naming.DENSE),
    ("blocks.{i}.spatial_norm", "block_{i}/spatial_norm", naming.NORM),
    ("blocks.{i}.channel_fc1", "block_{i}/channel_mixing/Dense_0", naming.DENSE),
    ("blocks.{i}.channel_fc2", "block_{i}/channel_mixing/Dense_1", naming.DENSE),
    ("blocks.{i}.channel_norm", "block_{i}/channel_norm", naming.NORM),
    ("head", "head", naming.DENSE),
  ),
)


def create(model, image_size, params, form):
  """(the PyTorch module of one of our models, with its parameters; the memory format of module and images).

  Args:
    model: a linen module of Mixer, ResMLP, S2-MLP or AS-MLP; without drop path and dropout.
    image_size: side of the images.
    params: {"path/of/leaf": array}, ours.
    form: one of `peers.FORMS`.

  Returns:
    A module from normalized images [B, 3, H, W] to logits, and a torch.memory_format.

  Raises:
    UserError: another family, or an option that the PyTorch version does not have.
  """
  make, fixed, table = _FAMILIES[type(model)]
  for option, value in fixed.items():
    if getattr(model, option) != value:
      raise UserError(f"--peers: the PyTorch version has no model.{option}={getattr(model, option)!r}, only {value!r}")
  module = make(model, image_size)
  state = {}
  for path, array in params.items():
    name, transform = table.theirs(path)
    state[name] = torch.from_numpy(np.array(transform(np.asarray(array)), order="C"))
  module.load_state_dict(state)
  if form == "1x1 conv":
    _as_convolutions(module)
  return module, torch.channels_last if form == "channels_last" else torch.contiguous_format


class _Pointwise(nn.Module):
  """A linear layer as a 1x1 convolution over the positions of x [B, ..., C], without copying x."""

  def __init__(self, linear):
    super().__init__()
    self.weight, self.bias = linear.weight, linear.bias

  def forward(self, x):
    y = x.movedim(-1, 1)
    y = nn.functional.conv2d(y if y.ndim == 4 else y[..., None], self.weight[:, :, None, None], self.bias)
    return (y if x.ndim == 4 else y[..., 0]).movedim(1, -1)


def _as_convolutions(module):
  for name, child in module.named_children():
    if isinstance(child, nn.Linear) and name != "head":  # whose input has no positions
      setattr(module, name, _Pointwise(child))
    else:
      _as_convolutions(child)


def _mixer(model, image_size):
  return _timm_mixer(
    model,
    image_size,
    mlp_ratio=(model.tokens_mlp_dim / model.hidden_dim, model.channels_mlp_dim / model.hidden_dim),
    act_layer=partial(nn.GELU, approximate="tanh" if model.approximate_gelu else "none"),
  )


def _resmlp(model, image_size):
  from timm.models import mlp_mixer

  blocks = dict(block_layer=mlp_mixer.ResBlock, norm_layer=mlp_mixer.Affine)
  return _timm_mixer(model, image_size, mlp_ratio=model.mlp_ratio, **blocks)


def _timm_mixer(model, image_size, **options):
  from timm.models import mlp_mixer

  return mlp_mixer.MlpMixer(
    num_classes=model.num_classes,
    img_size=image_size,
    patch_size=model.patch_size,
    num_blocks=model.num_blocks,
    embed_dim=model.hidden_dim,
    **options,
  )


def _s2mlp(model, image_size):
  del image_size
  from benchmarks import s2mlp

  sizes = ("num_classes", "patch_size", "num_blocks", "hidden_dim", "mlp_ratio")
  if model.norm == "none" or model.stem_norm != model.norm:
    raise UserError("--peers: the PyTorch version has model.norm=model.stem_norm, 'layer' or 'affine'")
  return s2mlp.S2MLP(**{name: getattr(model, name) for name in sizes}, affine=model.norm == "affine")


def _asmlp(model, image_size):
  del image_size
  from benchmarks import asmlp

  sizes = ("num_classes", "patch_size", "hidden_dim", "depths", "mlp_ratio", "shift_size")
  return asmlp.ASMLP(**{name: getattr(model, name) for name in sizes})


# Family -> (function that makes the module, options that its PyTorch version fixes, names of parameters).
_FAMILIES = {
  mixer.MlpMixer: (_mixer, {}, mixer.FAMILY.tables[0]),
  resmlp.ResMLP: (_resmlp, {}, resmlp.FAMILY.tables[0]),
  s2mlp.S2MLP: (_s2mlp, {"directions": "four", "border": "keep", "norm_position": "post"}, _S2MLP_NAMES),
  asmlp.ASMLP: (_asmlp, {"padding": "zero", "dilation": 1, "connection": "parallel"}, asmlp.FAMILY.tables[0]),
}
