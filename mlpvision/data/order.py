"""Which image stands at which place of the training stream."""

import grain


class Order:
  """Callable: position in the stream of all training images, counted over the whole run -> index of an image.

  Without repeats this is one permutation of the images per epoch. With repeated augmentation (Hoffer et al., arXiv
  1901.09335, as DeiT's sampler does it) each image stands in its batch `repeats` times, and an epoch has as many places
  as without: its permutation goes only as far as they reach, to about num_images / repeats images. Copies are dealt
  over the batch, never side by side, because mixup and cutmix mix neighbours. At the edge of a batch the copies of one
  image may fall into two.
  """

  def __init__(self, num_images: int, *, seed: int, batch_size: int, repeats: int = 1) -> None:
    """batch_size is the global one; with repeats, the order depends on it."""
    self._permutation = grain.MapDataset.range(num_images).seed(seed).shuffle()
    self._num_images, self._batch_size, self._repeats = num_images, batch_size, repeats
    self._images_per_epoch = max(1, num_images // repeats)
    # Row i of a batch takes place deal[i]: first every repeats-th place, then the places after those, and so on; each
    # time one image further, so that an image meets another neighbour.
    columns = [list(range(copy, batch_size, repeats)) for copy in range(repeats)]
    self._deal = [place for copy, column in enumerate(columns) for place in column[copy:] + column[:copy]]

  def __call__(self, position: int) -> int:
    batch, row = divmod(int(position), self._batch_size)
    image = (batch * self._batch_size + self._deal[row]) // self._repeats
    epoch, image = divmod(image, self._images_per_epoch)
    return int(self._permutation[epoch * self._num_images + image])
