"""S2-MLP (arXiv 2106.07477) in plain PyTorch, to compare ours with: the paper's default architecture."""

import torch
from torch import nn
from torch.nn import functional as F


class Affine(nn.Module):
  """weight * x + bias per channel; x [..., C]."""

  def __init__(self, channels):
    super().__init__()
    self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

  def forward(self, x):
    return torch.addcmul(self.bias, x, self.weight)


def shift(x):
  """A quarter of the channels of x [B, H, W, C] each one position right, left, down and up; borders keep their own."""
  right, left, down, up = x.chunk(4, -1)
  return torch.cat(
    (
      torch.cat((right[:, :, :1], right[:, :, :-1]), 2),
      torch.cat((left[:, :, 1:], left[:, :, -1:]), 2),
      torch.cat((down[:, :1], down[:, :-1]), 1),
      torch.cat((up[:, 1:], up[:, -1:]), 1),
    ),
    -1,
  )


class S2Block(nn.Module):
  """A spatial-shift branch and a channel-MLP branch, with norms at their ends; [B, H, W, C] -> [B, H, W, C]."""

  def __init__(self, channels, hidden_dim, norm):
    super().__init__()
    self.spatial_fc1, self.spatial_fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
    self.channel_fc1, self.channel_fc2 = nn.Linear(channels, hidden_dim), nn.Linear(hidden_dim, channels)
    self.spatial_norm, self.channel_norm = norm(channels), norm(channels)

  def forward(self, x):
    x = x + self.spatial_norm(self.spatial_fc2(shift(F.gelu(self.spatial_fc1(x)))))
    return x + self.channel_norm(self.channel_fc2(F.gelu(self.channel_fc1(x))))


class S2MLP(nn.Module):
  """Normalized images [B, 3, H, W] -> logits [B, num_classes]. affine: Affine in place of layer norm, as in "deep"."""

  def __init__(self, num_classes, patch_size, num_blocks, hidden_dim, mlp_ratio, affine):
    super().__init__()
    norm = Affine if affine else lambda channels: nn.LayerNorm(channels, eps=1e-6)
    self.stem = nn.Conv2d(3, hidden_dim, patch_size, patch_size)
    self.stem_norm = norm(hidden_dim)
    blocks = (S2Block(hidden_dim, int(hidden_dim * mlp_ratio), norm) for _ in range(num_blocks))
    self.blocks = nn.Sequential(*blocks)
    self.head = nn.Linear(hidden_dim, num_classes)

  def forward(self, images):
    x = self.stem_norm(self.stem(images).permute(0, 2, 3, 1))
    return self.head(self.blocks(x).mean((1, 2)))
