"""The order of training images."""

import grain


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
