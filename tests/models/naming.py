"""Published PyTorch names of the comparison models' parameters and ours, as tables.

A table is a sequence of (regular expression, replacement) for whole names; None drops a name (a buffer). What follows
from the kind of a layer is not in the tables: `weight` is a norm's scale or a kernel that has to be transposed.
"""

import re

import numpy as np

# lukemelas/do-you-even-need-attention.
FF = (
  (r"patch_embed\.proj\.(.*)", r"stem/\1"),
  (r"cls_token", r"cls_token"),
  (r"pos_encoding\.pos_embed", r"pos_embedding"),
  (r"pos_encoding\.cls_pos_embed", r"cls_pos_embedding"),
  (r"blocks\.(\d+)\.norm(\d)\.(.*)", r"block_\1/norm\2/\3"),
  (r"blocks\.(\d+)\.mlp1\.fc1\.(.*)", r"block_\1/channel_mixing/Dense_0/\2"),
  (r"blocks\.(\d+)\.mlp1\.fc2\.(.*)", r"block_\1/channel_mixing/Dense_1/\2"),
  (r"blocks\.(\d+)\.mlp2\.fc1\.(.*)", r"block_\1/token_mixing/Dense_0/\2"),
  (r"blocks\.(\d+)\.mlp2\.fc2\.(.*)", r"block_\1/token_mixing/Dense_1/\2"),
  (r"(norm|head)\.(.*)", r"\1/\2"),
)

# timm | facebookresearch/deit.
RESMLP = (
  (r"(?:stem|patch_embed)\.proj\.(.*)", r"stem/\1"),
  (r"blocks\.(\d+)\.norm(\d)\.(.*)", r"block_\1/norm\2/\3"),
  (r"blocks\.(\d+)\.(?:linear_tokens|attn)\.(.*)", r"block_\1/linear_tokens/\2"),
  (r"blocks\.(\d+)\.(?:mlp_channels|mlp)\.fc1\.(.*)", r"block_\1/channel_mixing/Dense_0/\2"),
  (r"blocks\.(\d+)\.(?:mlp_channels|mlp)\.fc2\.(.*)", r"block_\1/channel_mixing/Dense_1/\2"),
  (r"blocks\.(\d+)\.(?:ls|gamma_)(\d)", r"block_\1/layer_scale\2"),
  (r"(norm|head)\.(.*)", r"\1/\2"),
)

# timm; DeiT's names are the same.
VIT = (
  (r"patch_embed\.proj\.(.*)", r"stem/\1"),
  (r"cls_token", r"cls_token"),
  (r"pos_embed", r"pos_embedding"),
  (r"blocks\.(\d+)\.norm(\d)\.(.*)", r"block_\1/norm\2/\3"),
  (r"blocks\.(\d+)\.attn\.(qkv|proj)\.(.*)", r"block_\1/attention/\2/\3"),
  (r"blocks\.(\d+)\.mlp\.fc1\.(.*)", r"block_\1/channel_mixing/Dense_0/\2"),
  (r"blocks\.(\d+)\.mlp\.fc2\.(.*)", r"block_\1/channel_mixing/Dense_1/\2"),
  (r"(norm|head)\.(.*)", r"\1/\2"),
)

# timm | microsoft/Swin-Transformer, whose stages end with the merging that timm starts the next stage with.
_SWIN_BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
SWIN = (
  (r"patch_embed\.proj\.(.*)", r"stem/\1"),
  (r"patch_embed\.norm\.(.*)", r"stem_norm/\1"),
  (_SWIN_BLOCK + r"norm(\d)\.(.*)", r"stage_\1_block_\2/norm\3/\4"),
  (_SWIN_BLOCK + r"attn\.(qkv|proj)\.(.*)", r"stage_\1_block_\2/attention/\3/\4"),
  (_SWIN_BLOCK + r"attn\.relative_position_bias_table", r"stage_\1_block_\2/relative_position_bias"),
  (_SWIN_BLOCK + r"mlp\.fc1\.(.*)", r"stage_\1_block_\2/channel_mixing/Dense_0/\3"),
  (_SWIN_BLOCK + r"mlp\.fc2\.(.*)", r"stage_\1_block_\2/channel_mixing/Dense_1/\3"),
  (_SWIN_BLOCK + r"(?:attn_mask|attn\.relative_position_index)", None),
  (r"layers\.(\d+)\.downsample\.(norm|reduction)\.(.*)", r"merge_\1/\2/\3"),
  (r"norm\.(.*)", r"norm/\1"),
  (r"head\.(?:fc\.)?(weight|bias)", r"head/\1"),
)


def params_from_ff(state):
  """Official FF parameters {name: array} as ours."""
  params = _rename(state, FF)
  params["pos_embedding"] = params["pos_embedding"].transpose(0, 2, 3, 1)
  return _nested(params)


def params_from_resmlp(state):
  """ResMLP parameters of timm or of the DeiT repository as ours."""
  return _nested(_rename(state, RESMLP))


def params_from_vit(state):
  """timm's ViT parameters as ours."""
  return _nested(_rename(state, VIT))


def params_from_swin(state):
  """Swin parameters of timm or of the original repository as ours."""
  if not any(name.startswith("layers.0.downsample.") for name in state):  # timm
    stage = re.compile(r"layers\.(\d+)\.downsample")
    state = {stage.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample", name): x for name, x in state.items()}
  params = _rename(state, SWIN)
  for name, table in params.items():
    if name.endswith("relative_position_bias"):
      side = round(len(table) ** 0.5)
      params[name] = table.reshape(side, side, -1)
  return _nested(params)


def _rename(state, table):
  """Our flat {path: array}."""
  params = {}
  for name, value in state.items():
    rules = [(match, path) for pattern, path in table if (match := re.fullmatch(pattern, name))]
    if len(rules) != 1:
      raise ValueError(f"{len(rules)} rules for the parameter {name!r}")
    ((match, path),) = rules
    if path is not None:
      path, value = _convert(match.expand(path), np.asarray(value))
      params[path] = value
  return params


def _convert(path, value):
  layer, _, leaf = path.rpartition("/")
  if leaf in ("alpha", "beta"):  # ResMLP's affine transform, [1, 1, C] in timm
    return f"{layer}/{'scale' if leaf == 'alpha' else 'bias'}", value.reshape(-1)
  if leaf != "weight":
    return path, value
  if value.ndim == 1:
    return f"{layer}/scale", value
  return f"{layer}/kernel", value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _nested(params):
  tree = {}
  for path, value in params.items():
    *parents, leaf = path.split("/")
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[leaf] = value
  return tree
