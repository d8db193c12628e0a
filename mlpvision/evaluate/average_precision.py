"""COCO's figures of a detector on a split: the model on all devices, masks on the hosts, COCOeval on each host."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
from jax.experimental import multihost_utils
import ml_collections
import numpy as np

from mlpvision import tasks
from mlpvision.data import datasets
from mlpvision.evaluate import coco_scores, one_pass


class AveragePrecision:
  """Evaluates parameters on one split."""

  def __init__(
    self,
    model: nn.Module,
    split: datasets.Split,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    classes: Sequence[int] | np.ndarray | None = None,
  ) -> None:
    """classes: int [k], the model's class for each class of the split, see `evaluators.match_classes`; None: equal."""
    self.split, self.config, self.mesh, self.classes = split, config, mesh, classes
    self.masks = _has_masks(config)

    def outputs(variables, batch):
      found = tasks.of(config).outputs(functools.partial(model.apply, variables), batch, config)
      return tuple(found), {key: batch[key] for key in ("index", "mask", "original", "size")}

    self._outputs = one_pass.jit(outputs, mesh)

  @staticmethod
  def metrics(entry: Mapping[str, Any], config: ml_collections.ConfigDict) -> dict[str, str]:
    """COCO's twelve figures of boxes and, with masks, of masks."""
    del entry
    return tasks.detection.metrics(config)

  def run(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """{metric: value in [0, 1], NaN where there are no such objects}, and "images", the number of images."""
    return {**self.scores(variables).figures, "images": len(self.split)}

  def scores(self, variables: Mapping[str, Any]) -> coco_scores.Scores:
    """All of COCO's scores, with those of each class. Every process must call it, and has all of them."""
    images, classes = self._truth.dataset["images"], self.split.source.category_ids
    results = []
    for index, found in self.detections(variables):
      results += coco_scores.results(found, images[index]["id"], classes)
    return coco_scores.score(self._truth, results, masks=self.masks)

  def detections(self, variables: Mapping[str, Any]) -> list[tuple[int, coco_scores.Found]]:
    """[(index of an image in the split, its detections), ...] in the split's order.

    Every process makes the masks of its share of each batch, and has those of all at the end.
    """
    found, process, processes = [], jax.process_index(), jax.process_count()
    with concurrent.futures.ThreadPoolExecutor() as pool:
      for outputs, rows in one_pass.over(
        self.split, self.config, self.mesh, lambda batch: self._outputs(variables, batch)
      ):
        numbers = np.flatnonzero(rows["mask"])
        shares = (i % processes == process for i in range(len(numbers)))
        found += pool.map(functools.partial(self._in_image, outputs, rows), numbers, shares)
    if self.masks and processes > 1:
      found = _with_all_masks(found)
    return sorted(found, key=lambda item: item[0])

  def _in_image(self, outputs, rows, row, own):
    """(index, detections) of a row; with masks None if they are made by another process."""
    boxes, scores, labels, masks = (None if array is None else array[row] for array in outputs)
    masks = masks if own and self.masks else None
    geometry = dict(size=rows["size"][row], original=rows["original"][row])
    return int(rows["index"][row]), coco_scores.in_image(boxes, scores, self._renumbered(labels), masks, **geometry)

  def _renumbered(self, labels):
    """The model's labels as those of the split; -1 for a class that the split does not have."""
    if self.classes is None:
      return labels
    numbers = np.full(max(int(np.max(self.classes)), int(labels.max(initial=0))) + 2, -1)
    numbers[np.asarray(self.classes)] = np.arange(len(self.classes))
    return numbers[labels]  # the last one is for -1

  @functools.cached_property
  def _truth(self):
    return coco_scores.ground_truth(self.split.source, self.split.class_names)


def _has_masks(config):
  return bool(config.model.get("masks", True))


def _with_all_masks(found):
  """Detections with the masks of all processes; here each has those of its share, and None for the others."""
  own = [
    b"" if detections.masks is None else detections.masks[i]["counts"]
    for _, detections in found
    for i in range(len(detections.labels))
  ]
  texts, merged = iter(_gathered(own)), []
  for index, detections in found:
    masks = [coco_scores.mask(detections, next(texts)) for _ in detections.labels]
    merged.append((index, dataclasses.replace(detections, masks=masks)))
  return merged


def _gathered(texts: list[bytes]) -> list[bytes]:
  """In every process, each text as the one process has it where it is not empty."""
  if not texts:
    return []
  data = np.frombuffer(b"".join(texts), np.uint8)
  lengths = np.asarray(multihost_utils.process_allgather(np.array([len(text) for text in texts], np.int32)))
  longest = int(lengths.sum(1).max())
  everyones = np.asarray(multihost_utils.process_allgather(np.pad(data, (0, longest - len(data)))))
  ends, owners = lengths.cumsum(1), lengths.argmax(0)
  return [
    everyones[owner, ends[owner, i] - lengths[owner, i] : ends[owner, i]].tobytes() for i, owner in enumerate(owners)
  ]
