"""Pictures of objects: boxes and translucent masks in their class's color, with names and scores; and their files."""

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
import numpy as np

from mlpvision.reporting import label_maps, lettering, palette
from mlpvision.reporting.curves import to_png

_LINE = 110  # a box's line is an image's longer side over this wide, in an image of pixels
_DPI = 130  # of `to_png`
_PAD = 1.2  # points around a name
_LETTERS = 24  # of a class's name, at most


def color(label: int) -> np.ndarray:
  """float64 [3]: the color of a class, the same in every picture; from 255 on, classes share colors."""
  return palette.colors()[label % palette.COUNT] / 255


def draw(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
  """The image, paler, with its objects as a training batch has them; for contact sheets.

  image: float [H, W, 3] in [0, 1]; boxes: float [n, 4], x1, y1, x2, y2 in pixels; labels: int [n], -1 for no object;
    masks: uint8 [n, S, S], each in the frame of its box, or None.

  Returns float [H, W, 3].
  """
  found = label_maps.pale(image)
  height, width = found.shape[:2]
  objects = [i for i in np.argsort(-_areas(boxes), kind="stable") if labels[i] >= 0]  # small ones on top
  for i in objects if masks is not None else ():
    rows, columns = _cells(boxes[i, 1::2], height, len(masks[i])), _cells(boxes[i, ::2], width, len(masks[i]))
    _blend(found[rows[0], columns[0]], masks[i][rows[1]][:, columns[1]] / 255, labels[i])
  line = max(1, round(max(height, width) / _LINE))
  for i in objects:
    x1, y1, x2, y2 = np.rint(boxes[i]).astype(int).clip(0, (width, height) * 2)
    for part in (np.s_[:line, :], np.s_[-line:, :], np.s_[:, :line], np.s_[:, -line:]):
      found[y1:y2, x1:x2][part] = color(labels[i])
  return found


def to_overlay_png(image: np.ndarray, found: Any, min_score: float = 0.0) -> bytes:
  """A PNG of the image, paler, with its objects of at least this score.

  image: uint8 [H, W, 3]; found: `tasks.detection.Prediction` of it.
  """
  height, width = image.shape[:2]
  scale = label_maps.scale(height, width)
  figure = Figure(figsize=(scale * width / _DPI, scale * height / _DPI), dpi=_DPI)
  axes = figure.add_axes((0, 0, 1, 1))
  shown = [i for i in np.argsort(-_areas(found.boxes), kind="stable") if found.scores[i] >= min_score]
  picture = label_maps.pale(image / 255)
  for i in shown if found.masks is not None else ():
    _blend(picture, found.masks[i], found.labels[i])
  # Edges between pixels are whole numbers.
  axes.imshow(
    picture, extent=(0, width, height, 0), aspect="auto", interpolation="nearest" if scale >= 1 else "antialiased"
  )
  axes.set(xlim=(0, width), ylim=(height, 0))
  axes.set_axis_off()
  for i in shown:
    x1, y1, x2, y2 = found.boxes[i]
    for line, edge in ((2.6, "black"), (1.4, color(found.labels[i]))):
      axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=line, edgecolor=edge))
  _write_names(figure, axes, found, sorted(shown, key=lambda i: -found.scores[i]))
  return to_png(figure)


def write_overlay(file: str, image: np.ndarray, found: Any, min_score: float) -> None:
  """Writes `to_overlay_png`, and makes its directory. Raises UserError if it cannot be written."""
  label_maps.write_all({file: to_overlay_png(image, found, min_score)})


def _write_names(figure, axes, found, order):
  """The name and score of each object, best first, where they cover least of boxes and names."""
  canvas = FigureCanvasAgg(figure)
  width, height = canvas.get_width_height()
  texts = []
  for i in order:
    name = lettering.plain(f"{found.class_names[found.labels[i]][:_LETTERS]} {found.scores[i]:.2f}")
    ground = color(found.labels[i])
    texts.append(
      axes.text(
        0, 0, name, transform=None, fontsize=7, va="bottom", ha="left",
        color="black" if ground @ (0.299, 0.587, 0.114) > 0.45 else "white",
        bbox=dict(facecolor=ground, edgecolor="none", pad=_PAD),
      )
    )  # fmt: skip
  lettering.choose_fonts(figure)
  factors = np.array([width / axes.get_xlim()[1], height / axes.get_ylim()[0]] * 2)
  boxes = np.asarray(found.boxes, np.float64)[order] * factors  # x and y in pixels of the figure, y down
  taken = []
  for text, (x1, y1, x2, y2) in zip(texts, boxes, strict=True):
    extent = text.get_window_extent(canvas.get_renderer()).padded(_PAD * _DPI / 72)
    w, h = extent.width, extent.height
    corners = [(x1, y1 - h), (x2 - w, y1 - h), (x1, y2), (x2 - w, y2), (x2, y1), (x1 - w, y1), (x2, y2 - h)]
    corners += [(x1 - w, y2 - h), (x1, y1), (x2 - w, y1), (x1, y2 - h), (x2 - w, y2 - h)]
    best, least = None, np.inf
    for x, y in corners:
      x, y = np.clip(x, 0, max(width - w, 0)), np.clip(y, 0, max(height - h, 0))
      place = np.array([x, y, x + w, y + h])
      cost = _overlap(place, boxes).sum() + 20 * (_overlap(place, np.array(taken)).sum() if taken else 0)
      if cost < least - 1e-6:
        best, least = place, cost
    taken.append(best)
    text.set_position((best[0] - extent.x0, height - best[3] - extent.y0))


def _overlap(box, boxes):
  """[n]: the area that a box shares with each of boxes [n, 4]."""
  sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
  return sides.clip(0).prod(1)


def _areas(boxes):
  return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _cells(edges, size, cells):
  """(slice of the pixels along an axis whose centers are in a box, int [n]: the cell of its mask for each)."""
  first, last = (int(np.clip(np.ceil(edge - 0.5), 0, size)) for edge in edges)
  centers = np.arange(first, last) + 0.5
  return slice(first, last), ((centers - edges[0]) / (edges[1] - edges[0]) * cells).astype(int).clip(0, cells - 1)


def _blend(part, alpha, label):
  """Colors part of an image, float [h, w, 3], in place. alpha: [h, w] in [0, 1]."""
  alpha = label_maps.OPACITY * np.asarray(alpha, np.float64)[..., None]
  part[...] = (1 - alpha) * part + alpha * color(label)
