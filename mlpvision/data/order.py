"""Which images are in which step: functions of the position in the training stream, counted over the whole run."""

from collections.abc import Sequence
import functools

import grain
import numpy as np


class Order:
  """Maps a position in the training stream, counted over the whole run, to the index of an image.

  Without repeats, each epoch is a permutation of the images. With repeated augmentation (Hoffer et al., arXiv
  1901.09335, as in DeiT's sampler), each image occurs `repeats` times in its batch and epochs keep their length, so an
  epoch contains only about num_images / repeats images. Copies are spread over the batch and never adjacent, because
  mixup and cutmix mix neighbors. At the edge of a batch, the copies of an image may be in two batches.
  """

  def __init__(self, num_images: int, *, seed: int, batch_size: int, repeats: int = 1) -> None:
    """batch_size: the global one; with repeats, the order depends on it."""
    self._permutation = grain.MapDataset.range(num_images).seed(seed).shuffle()
    self._num_images, self._batch_size, self._repeats = num_images, batch_size, repeats
    self._images_per_epoch = max(1, num_images // repeats)
    # Row i of a batch is item spread[i] of its images with all copies adjacent: first the first copy of each image,
    # then the second, and so on, each time rotated by one image, so that every copy has another neighbor.
    columns = [list(range(copy, batch_size, repeats)) for copy in range(repeats)]
    self._spread = [item for copy, column in enumerate(columns) for item in column[copy:] + column[:copy]]

  def __call__(self, position: int) -> int:
    batch, row = divmod(int(position), self._batch_size)
    image = (batch * self._batch_size + self._spread[row]) // self._repeats
    epoch, image = divmod(image, self._images_per_epoch)
    return int(self._permutation[epoch * self._num_images + image])

  def replacement(self, index: int, rng: np.random.Generator) -> int:
    """Another image, drawn for one that cannot be read."""
    del index
    return int(rng.integers(self._num_images))


class OrientedOrder:
  """Maps a position in the training stream to the index of an image, so that all images of a batch are of one kind.

  There are two kinds, wide images and others, each with its own endless stream: one permutation of its images after
  another, cut into batches. With n images there are S = n // batch_size steps (or one) in a block, and of the first b
  blocks' batches, floor(b S n_wide / n) are of wide images: their share never drifts. Within a block, the kinds are
  permuted. mmdetection's GroupSampler does the same per GPU and epoch, and fills each epoch's last batches.
  """

  def __init__(self, wide: np.ndarray | Sequence[bool], *, seed: int, batch_size: int) -> None:
    """wide: bool [images], the kind of each."""
    self._wide = np.asarray(wide, bool)
    self._seed, self._batch_size = seed, batch_size
    self._steps = max(1, len(self._wide) // batch_size)
    # By kind: False, True.
    self._indices = [np.flatnonzero(self._wide == kind) for kind in (False, True)]
    self._permutations = [
      grain.MapDataset.range(len(indices)).seed(seed).shuffle() if len(indices) else None for indices in self._indices
    ]

  def __call__(self, position: int) -> int:
    step, row = divmod(int(position), self._batch_size)
    kind, number = self._batch(step)
    return int(self._indices[kind][self._permutations[kind][number * self._batch_size + row]])

  def is_wide(self, step: int) -> bool:
    """Whether the images of this step, counted from 0, are wide."""
    return self._batch(int(step))[0]

  def replacement(self, index: int, rng: np.random.Generator) -> int:
    """Another image of the same kind, drawn for one that cannot be read."""
    indices = self._indices[int(self._wide[index])]
    return int(indices[rng.integers(len(indices))])

  def _batch(self, step):
    """(kind of a step's batch, its number among the batches of this kind)."""
    block, offset = divmod(step, self._steps)
    before, after = (b * self._steps * len(self._indices[True]) // len(self._wide) for b in (block, block + 1))
    kinds, numbers = _block(self._seed, block, self._steps, after - before)
    kind = bool(kinds[offset])
    return kind, int(numbers[offset]) + (before if kind else block * self._steps - before)


@functools.lru_cache(maxsize=8)
def _block(seed, block, steps, num_wide):
  """(whether each batch of a block is of wide images, its number in the block among those of its kind)."""
  wide = np.random.default_rng((seed, block)).permutation(steps) < num_wide
  return wide, np.where(wide, np.cumsum(wide), np.cumsum(~wide)) - 1
