"""AS-MLP (arXiv 2107.08391) in plain PyTorch, to compare ours with. Modules are named as in the official code."""

import torch
from torch import nn
from torch.nn import functional as F


def shift(x, size, axis):
  """Channel group g of x [B, C, H, W] moved by g - size // 2 along axis 2 or 3, zeros coming in."""
  reach, length = size // 2, x.shape[axis]
  padded = F.pad(x, (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0))
  # chunk's groups have ceil(C / size) channels, the last one what is left.
  moved = (group.narrow(axis, size - 1 - g, length) for g, group in enumerate(padded.chunk(size, 1)))
  return torch.cat(tuple(moved), 1)


def _norm(channels):
  return nn.GroupNorm(1, channels)


class AxialShift(nn.Module):
  """Projection, both shifts with a projection each, projection."""

  def __init__(self, channels, shift_size):
    super().__init__()
    self.shift_size = shift_size
    self.conv1, self.norm1 = nn.Conv2d(channels, channels, 1), _norm(channels)
    self.conv2_1, self.conv2_2 = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
    self.norm2, self.conv3 = _norm(channels), nn.Conv2d(channels, channels, 1)

  def forward(self, x):
    x = F.gelu(self.norm1(self.conv1(x)))
    horizontal = F.gelu(self.conv2_1(shift(x, self.shift_size, 3)))
    vertical = F.gelu(self.conv2_2(shift(x, self.shift_size, 2)))
    return self.conv3(self.norm2(horizontal + vertical))


class Mlp(nn.Module):
  """Two pointwise layers."""

  def __init__(self, channels, hidden_dim):
    super().__init__()
    self.fc1, self.fc2 = nn.Conv2d(channels, hidden_dim, 1), nn.Conv2d(hidden_dim, channels, 1)

  def forward(self, x):
    return self.fc2(F.gelu(self.fc1(x)))


class ASBlock(nn.Module):
  """x + AxialShift(norm(x)), then x + Mlp(norm(x)); [B, C, H, W] -> [B, C, H, W]."""

  def __init__(self, channels, mlp_ratio, shift_size):
    super().__init__()
    self.norm1, self.axial_shift = _norm(channels), AxialShift(channels, shift_size)
    self.norm2, self.mlp = _norm(channels), Mlp(channels, int(channels * mlp_ratio))

  def forward(self, x):
    x = x + self.axial_shift(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
  """Halves the map, doubles the channels."""

  def __init__(self, channels):
    super().__init__()
    self.norm, self.reduction = _norm(4 * channels), nn.Conv2d(4 * channels, 2 * channels, 1, bias=False)

  def forward(self, x):
    corners = (x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1))
    return self.reduction(self.norm(torch.cat(tuple(corners), 1)))


class PatchEmbed(nn.Module):
  """Non-overlapping patches through one linear map."""

  def __init__(self, patch_size, channels):
    super().__init__()
    self.proj, self.norm = nn.Conv2d(3, channels, patch_size, patch_size), _norm(channels)

  def forward(self, images):
    return self.norm(self.proj(images))


class Stage(nn.Module):
  """Blocks, then a merging unless it is the last stage."""

  def __init__(self, channels, depth, mlp_ratio, shift_size, merge):
    super().__init__()
    self.blocks = nn.Sequential(*(ASBlock(channels, mlp_ratio, shift_size) for _ in range(depth)))
    self.downsample = PatchMerging(channels) if merge else nn.Identity()

  def forward(self, x):
    return self.downsample(self.blocks(x))


class ASMLP(nn.Module):
  """Normalised images [B, 3, H, W] -> logits [B, num_classes]."""

  def __init__(self, num_classes, patch_size, hidden_dim, depths, mlp_ratio, shift_size):
    super().__init__()
    self.patch_embed = PatchEmbed(patch_size, hidden_dim)
    last = len(depths) - 1
    stages = (Stage(hidden_dim * 2**i, depth, mlp_ratio, shift_size, i < last) for i, depth in enumerate(depths))
    self.layers = nn.Sequential(*stages)
    self.norm = _norm(hidden_dim * 2**last)
    self.head = nn.Linear(hidden_dim * 2**last, num_classes)

  def forward(self, images):
    return self.head(self.norm(self.layers(self.patch_embed(images))).mean((2, 3)))
