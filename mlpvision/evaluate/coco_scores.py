"""Scores of detections by pycocotools' COCOeval, as mmdetection computes them; on the host, without a model."""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import io
from typing import Any

import numpy as np

from mlpvision.data import host_masks, rle
from mlpvision.tasks import detection

KINDS = {"box": "bbox", "mask": "segm"}  # as COCOeval calls them


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """The detections of one image, in its own pixels, best first.

  Attributes:
    boxes: float32 [n, 4] of x1, y1, x2, y2.
    scores: float32 [n].
    labels: int [n].
    masks: n RLEs, or None.
    size: (height, width) of the image.
  """

  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  masks: list[dict[str, Any]] | None
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """COCO's figures.

  Attributes:
    figures: {"box_ap": ..., "mask_ar_large": ...} in [0, 1]; NaN where there are no such objects.
    by_class: {"box": float64 [K], "mask": ...}, the AP of each class over all IoUs; NaN for one without objects.
    by_iou_and_class: {"box": float64 [10, K], "mask": ...}, at IoUs from 0.5 to 0.95.
  """

  figures: dict[str, float]
  by_class: dict[str, np.ndarray]
  by_iou_and_class: dict[str, np.ndarray]


def in_image(
  boxes: np.ndarray,
  scores: np.ndarray,
  labels: np.ndarray,
  masks: np.ndarray | None,
  *,
  size: Sequence[int],
  original: Sequence[int],
) -> Found:
  """The detections of one image, from those on its canvas.

  boxes: float32 [N, 4] in pixels of the canvas; labels: -1 where there is none; masks: float32 [N, S, S],
    probabilities, or None; size: (height, width) of the resized image; original: of the image itself. Detections with
    NaN, of a model that has diverged, are left out.
  """
  kept = np.flatnonzero((labels >= 0) & np.isfinite(scores) & np.isfinite(boxes).all(1))
  height, width = (int(side) for side in original)
  boxes = detection.in_image(boxes[kept], size, original)
  found = None
  if masks is not None:
    found = [_pasted(masks[i], box, height, width) for i, box in zip(kept, boxes, strict=True)]
  return Found(boxes, np.asarray(scores[kept], np.float32), np.asarray(labels[kept], np.int64), found, (height, width))


def mask(found: Found, counts: bytes) -> dict[str, Any]:
  """The RLE of a mask in the image, from its compressed runs."""
  return {"size": list(found.size), "counts": counts}


def _pasted(probabilities, box, height, width):
  values, top, left = host_masks.around_box(probabilities, box, height, width)
  return rle.encode_part(values >= host_masks.THRESHOLD, top, left, height, width)


def results(found: Found, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
  """The detections of one image in COCO's result format; category_ids: the dataset's id of each label."""
  entries = []
  for i, (x1, y1, x2, y2) in enumerate(np.float64(found.boxes).tolist()):
    entry = {
      "image_id": int(image_id),
      "category_id": int(category_ids[found.labels[i]]),
      "bbox": [x1, y1, x2 - x1, y2 - y1],
      "score": float(found.scores[i]),
    }
    entries.append(entry if found.masks is None else {**entry, "segmentation": found.masks[i]})
  return entries


def ground_truth(source: Any, class_names: Sequence[str]) -> Any:
  """The COCO object of a detection split's source, see `datasets.Split`; its dataset["images"] are in their order.

  It has all objects, crowds and those that training leaves out, too, with areas as annotated; and all images. An image
  has the dataset's id, because COCOeval counts detections of equal scores in the order of these; its index, if ids are
  not unique. Objects are counted from 1, because COCOeval takes the id 0 for no match.
  """
  images, annotations = [], []
  examples = [source.annotations(index) for index in range(len(source))]
  is_unique = len({example["image_id"] for example in examples}) == len(examples)
  for index, found in enumerate(examples):
    (height, width), image_id = found["size"], found["image_id"] if is_unique else index
    images.append({"id": image_id, "height": height, "width": width})
    for i, box in enumerate(found["xywh"].tolist()):
      entry = {
        "id": len(annotations) + 1,
        "image_id": image_id,
        "category_id": int(source.category_ids[found["labels"][i]]),
        "bbox": box,
        "area": float(found["areas"][i]),
        "iscrowd": int(found["crowd"][i]),
      }
      annotations.append(entry if found["masks"] is None else {**entry, "segmentation": found["masks"][i]})
  categories = [{"id": i, "name": name} for i, name in zip(source.category_ids, class_names, strict=True)]
  return of_content({"images": images, "annotations": annotations, "categories": categories})


def of_content(content: Mapping[str, Any]) -> Any:
  """The COCO object of an annotation file's content."""
  rle.check_installed()
  from pycocotools.coco import COCO

  found = COCO()
  found.dataset = dict(content)
  with contextlib.redirect_stdout(io.StringIO()):
    found.createIndex()
  return found


def score(truth: Any, detections: Sequence[Mapping[str, Any]], *, masks: bool) -> Scores:
  """The scores of all images' `results` against a `ground_truth`; masks: whether masks are scored, too.

  A detection is small, medium or large by the area of its box, for masks, too: COCO.loadRes takes the box where there
  is one. mmdetection does so up to 2.11, which published tables are from; since 2.12 it leaves out the box.
  """
  from pycocotools.cocoeval import COCOeval

  figures, by_class, by_iou = {}, {}, {}
  for kind, of_library in list(KINDS.items())[: 1 + masks]:
    entries = [dict(entry) for entry in detections]  # which loadRes changes
    with contextlib.redirect_stdout(io.StringIO()):
      loaded = truth.loadRes(entries) if entries else of_content({**truth.dataset, "annotations": []})
      evaluation = COCOeval(truth, loaded, of_library)
      evaluation.evaluate()
      evaluation.accumulate()
      evaluation.summarize()
    figures |= {
      f"{kind}_{name}": _known(value) for name, value in zip(detection.FIGURES, evaluation.stats, strict=True)
    }
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] of all sizes, 100 detections
    means = precision.mean(1)
    by_iou[kind] = np.where(precision[:, 0] < 0, np.nan, means)
    by_class[kind] = by_iou[kind].mean(0)
  return Scores(figures, by_class, by_iou)


def _known(value):
  """COCOeval has -1 where there is nothing to score."""
  return float("nan") if value < 0 else float(value)
