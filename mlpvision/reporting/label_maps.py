"""Pictures of label maps: translucent on their image, with a legend; and as files for other programs."""

from collections.abc import Mapping, Sequence
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
OPACITY = 0.6  # of the classes' colors
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
  found = (1 - OPACITY) * pale(image) + OPACITY * _table()[labels]
  period = max(4, min(height, width) // 12)
  y, x = np.ogrid[:height, :width]
  stripes = np.where((y + x) % period * 2 < period, 0.25, 0.45)[..., None]
  return np.where((labels == IGNORE)[..., None], stripes, found)


def pale(image: np.ndarray) -> np.ndarray:
  """The image float [H, W, 3], clipped to [0, 1], with little of its saturation."""
  image = np.clip(image, 0, 1)
  return _PALE * image + (1 - _PALE) * (image @ _LUMINANCE)[..., None]


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
  factor = scale(height, width)
  size = factor * width / _DPI, factor * height / _DPI
  rows = [(f"{share:6.2%}  {name}", palette.colors()[i] / 255) for i, name, share in areas[:_LEGEND]]
  if len(areas) > _LEGEND:
    rows.append((f"and {len(areas) - _LEGEND} smaller classes", "white"))
  texts = [textwrap.fill(lettering.plain(name), 36) for name, _ in rows]
  lines = sum(text.count("\n") + 1 for text in texts)
  total = size[0] + _INCH, max(size[1], (lines + 1) * _ROW)
  figure = Figure(figsize=total, dpi=_DPI)
  axes = figure.add_axes((0, 1 - size[1] / total[1], size[0] / total[0], size[1] / total[1]))
  axes.imshow(overlay(image / 255, labels), interpolation="nearest" if factor >= 1 else "antialiased", aspect="auto")
  axes.set_axis_off()
  handles = [Patch(color=color) for _, color in rows]
  figure.legend(
    handles, texts, loc="upper left", bbox_to_anchor=(size[0] / total[0], 1), frameon=False, fontsize=8,
    handlelength=1.2, handleheight=1.0,
  )  # fmt: skip
  return to_png(figure)


def scale(height: int, width: int) -> float:
  """By how much an image is enlarged or reduced to be seen well."""
  return float(np.clip(max(height, width), *_SIDE) / max(height, width))


def file_names(
  names: Mapping[str, str], directory: str, suffixes: Sequence[str] = (".png", "_overlay.png")
) -> dict[str, tuple[str, ...]]:
  """{path of an image: files in a directory with its name and the suffixes, those of its map and its overlay}.

  names: {path: name}; a name may have directories.

  Raises UserError if two of the files are the same, or one is an image.
  """
  found, owners, images = {}, {}, set(map(os.path.realpath, names))
  for path, name in names.items():
    stem = os.path.splitext(name)[0]
    found[path] = tuple(os.path.join(directory, f"{stem}{suffix}") for suffix in suffixes)
    for file in found[path]:
      if file in owners:
        raise UserError(f"{owners[file]} and {path} would both write {file}: predict them into different directories")
      if os.path.realpath(file) in images:
        raise UserError(f"{file} is one of the images: choose another directory for --output")
      owners[file] = path
  return found


def write(files: Sequence[str], image: np.ndarray, prediction: Any) -> None:
  """Writes a map and its overlay, and makes their directory. Raises UserError if they cannot be written.

  files: see `file_names`; image: uint8 [H, W, 3]; prediction: `tasks.segmentation.Prediction` of it.
  """
  labels, names = prediction.labels, prediction.class_names
  areas = [(i, names[i], count / labels.size) for i, count in prediction.areas()]
  write_all(dict(zip(files, (to_indexed_png(labels), to_overlay_png(image, labels, areas)), strict=True)))


def write_all(contents: Mapping[str, bytes]) -> None:
  """Writes files of one directory, which it makes. contents: {file: its bytes}. Raises UserError if it cannot."""
  for file, data in contents.items():
    try:
      os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
      with open(file, "wb") as opened:
        opened.write(data)
    except OSError as error:
      raise UserError(f"cannot write {file}: {error}") from error


def _table():
  """float64 [256, 3]: the colors by index; 255 is black."""
  return np.concatenate([palette.colors() / 255, np.zeros((1, 3))])
