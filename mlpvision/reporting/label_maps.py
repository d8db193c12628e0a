"""Pictures of label maps: translucent on their image, with a legend; and as files for other programs."""

from collections.abc import Sequence
import io
import os
import textwrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
import numpy as np
from PIL import Image

from mlpvision.errors import UserError
from mlpvision.reporting import lettering, palette
from mlpvision.reporting.curves import to_png

IGNORE = 255
_OPACITY = 0.6  # of the classes' colors
_PALE = 0.25  # what remains of the image's saturation
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_DPI = 130  # of `to_png`
_SIDE = (380, 1600)  # pixels of a picture's longer side in an overlay
_LEGEND = 24  # classes in a legend, at most; the largest
_INCH, _ROW = 2.6, 0.175  # of a legend: its width, and a row


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The image float [H, W, 3] in [0, 1] below its classes' colors; ignored pixels are striped gray, without the image.

  The image is paler, so that a class has nearly the same color on any image.

  labels: uint8 [H, W], 255 where ignored.
  """
  height, width = labels.shape
  image = np.clip(image, 0, 1)
  pale = _PALE * image + (1 - _PALE) * (image @ _LUMINANCE)[..., None]
  found = (1 - _OPACITY) * pale + _OPACITY * _table()[labels]
  period = max(4, min(height, width) // 12)
  y, x = np.ogrid[:height, :width]
  stripes = np.where((y + x) % period * 2 < period, 0.25, 0.45)[..., None]
  return np.where((labels == IGNORE)[..., None], stripes, found)


def to_indexed_png(labels: np.ndarray) -> bytes:
  """A PNG of uint8 [H, W] whose 8-bit values are the indices of classes, with their colors as its palette."""
  image = Image.fromarray(labels).convert("L")
  image.putpalette((_table() * 255).round().astype(np.uint8).tobytes())
  buffer = io.BytesIO()
  image.save(buffer, "png")
  return buffer.getvalue()


def to_overlay_png(image: np.ndarray, labels: np.ndarray, areas: Sequence[tuple[int, str, float]]) -> bytes:
  """A PNG of `overlay` with a legend beside it.

  image: uint8 [H, W, 3]; areas: (class, name, share of the picture), the largest first.
  """
  height, width = labels.shape
  scale = np.clip(max(labels.shape), *_SIDE) / max(labels.shape)
  size = scale * width / _DPI, scale * height / _DPI
  rows = [(f"{share:6.2%}  {name}", palette.colors()[i] / 255) for i, name, share in areas[:_LEGEND]]
  if len(areas) > _LEGEND:
    rows.append((f"and {len(areas) - _LEGEND} smaller classes", "white"))
  texts = [textwrap.fill(lettering.plain(name), 36) for name, _ in rows]
  lines = sum(text.count("\n") + 1 for text in texts)
  total = size[0] + _INCH, max(size[1], (lines + 1) * _ROW)
  figure = Figure(figsize=total, dpi=_DPI)
  axes = figure.add_axes((0, 1 - size[1] / total[1], size[0] / total[0], size[1] / total[1]))
  axes.imshow(overlay(image / 255, labels), interpolation="nearest" if scale >= 1 else "antialiased", aspect="auto")
  axes.set_axis_off()
  handles = [Patch(color=color) for _, color in rows]
  figure.legend(
    handles, texts, loc="upper left", bbox_to_anchor=(size[0] / total[0], 1), frameon=False, fontsize=8,
    handlelength=1.2, handleheight=1.0,
  )  # fmt: skip
  return to_png(figure)


def file_names(paths: Sequence[str], directory: str) -> dict[str, tuple[str, str]]:
  """{path of an image: (file of its map, file of its overlay)} in a directory.

  Raises UserError if two of the files are the same, or one is an image.
  """
  found, owners, images = {}, {}, set(map(os.path.realpath, paths))
  for path in dict.fromkeys(paths):
    stem = os.path.splitext(os.path.basename(path))[0]
    found[path] = os.path.join(directory, f"{stem}.png"), os.path.join(directory, f"{stem}_overlay.png")
    for file in found[path]:
      if file in owners:
        raise UserError(f"{owners[file]} and {path} would both write {file}: predict them into different directories")
      if os.path.realpath(file) in images:
        raise UserError(f"{file} is one of the images: choose another directory for --output")
      owners[file] = path
  return found


def write(files: tuple[str, str], image: np.ndarray, prediction: Any) -> None:
  """Writes a map and its overlay, and makes their directory. Raises UserError if they cannot be written.

  files: see `file_names`; image: uint8 [H, W, 3]; prediction: `tasks.segmentation.Prediction` of it.
  """
  labels, names = prediction.labels, prediction.class_names
  areas = [(i, names[i], count / labels.size) for i, count in prediction.areas()]
  try:
    os.makedirs(os.path.dirname(files[0]) or ".", exist_ok=True)
    for file, data in zip(files, (to_indexed_png(labels), to_overlay_png(image, labels, areas)), strict=True):
      with open(file, "wb") as opened:
        opened.write(data)
  except OSError as error:
    raise UserError(f"cannot write {files[0]}: {error}") from error


def _table():
  """float64 [256, 3]: the colors by index; 255 is black."""
  return np.concatenate([palette.colors() / 255, np.zeros((1, 3))])
