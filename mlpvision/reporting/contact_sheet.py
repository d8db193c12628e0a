"""A contact sheet of training images with their targets."""

from collections.abc import Sequence
import math

from etils import epath
from matplotlib.figure import Figure
import numpy as np

from mlpvision.reporting import lettering
from mlpvision.reporting.curves import to_png

_COLUMNS = 8


def draw(path: epath.PathLike, images: Sequence[np.ndarray], captions: Sequence[str], *, title: str) -> None:
  """Writes the sheet as a PNG. images: B of float [H, W, 3], clipped to [0, 1]; captions: one for each image."""
  rows = math.ceil(len(images) / _COLUMNS)
  figure = Figure(figsize=(_COLUMNS * 1.7, rows * 2.05 + 0.6), layout="constrained")
  figure.suptitle(lettering.plain(title), fontsize=11)
  for i, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
    axes.set_axis_off()
    if i < len(images):
      axes.imshow(np.clip(images[i], 0, 1), interpolation="nearest")
      axes.set_title(lettering.plain(captions[i]), fontsize=7)
  epath.Path(path).write_bytes(to_png(figure))
