"""One color per class, the same in every picture, which color-blind readers can distinguish as far as possible.

The first seven are those of Okabe and Ito. Each further one is the farthest from all before it, as normal eyes and eyes
without red or green cones see them; so a class has the same color whatever the number of classes.
"""

import functools

import numpy as np

COUNT = 255  # label maps have no more classes

_OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# How linear RGB looks without red and without green cones (Machado, Oliveira and Fernandes 2009, severity 1).
_EYES = np.array(
  [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
  ]
)
# Oklab (Ottosson 2020), in which distances are nearly as they are seen.
_TO_CONES = np.array(
  [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ]
)
_TO_LAB = np.array(
  [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
  ]
)


@functools.cache
def colors() -> np.ndarray:
  """uint8 [255, 3], red, green and blue of each class; not to be changed."""
  steps = np.arange(0, 256, 17)
  grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
  # Neither nearly black nor nearly white, which pictures and pages have.
  lightness = seen(grid)[0, :, 0]
  grid = grid[(lightness > 0.4) & (lightness < 0.93)]
  found = [np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) for color in _OKABE_ITO]
  views = seen(grid)
  distance = np.full(len(grid), np.inf)
  for i in range(COUNT):
    if i >= len(_OKABE_ITO):
      found.append(grid[distance.argmax()])
    apart = np.linalg.norm(views - seen(found[i][None]), axis=-1).min(0)
    distance = np.minimum(distance, apart)
  result = np.array(found, np.uint8)
  result.flags.writeable = False
  return result


def seen(rgb: np.ndarray) -> np.ndarray:
  """[n, 3] in 0 to 255 -> Oklab [3, n, 3] as seen with all cones, without those for red, without those for green."""
  values = rgb / 255
  linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
  views = np.clip(np.einsum("vij,nj->vni", _EYES, linear), 0, 1)
  return np.cbrt(views @ _TO_CONES.T) @ _TO_LAB.T
