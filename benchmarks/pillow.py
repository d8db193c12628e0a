"""Loading as with PyTorch's DataLoader and timm's transforms: Pillow in worker processes.

Each worker takes the indices of a batch from a queue, reads the files, decodes, crops, flips and augments with Pillow,
and writes uint8 pixels into shared memory, as timm's fast collation does.
"""

from collections.abc import Iterator, Mapping, Sequence
import io
import math
import multiprocessing
import random
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import timm_randaugment

_AHEAD = 2  # batches per worker, as DataLoader's prefetch_factor
_PATIENCE = 120  # seconds to wait for a batch; after that, a worker must have died


def batches(config: Mapping[str, Any], paths: Sequence[str], workers: int) -> Iterator[np.ndarray]:
  """Batches of random files; config is a dict."""
  rows, size = config["data"]["batch_size"], config["data"]["image_size"]
  shape = (rows, size, size, 3)
  context = multiprocessing.get_context("fork")
  todo, done = context.Queue(), context.Queue()
  slots = [context.RawArray("B", math.prod(shape)) for _ in range(_AHEAD * workers)]
  processes = [
    context.Process(target=_work, args=(todo, done, slots, paths, config["augment"], config["data"]["mean"], shape))
    for _ in range(workers)
  ]
  rng = random.Random(0)
  try:
    for process in processes:
      process.start()
    for slot in range(len(slots)):
      todo.put((slot, rng.choices(range(len(paths)), k=rows)))
    while True:
      slot = done.get(timeout=_PATIENCE)
      yield np.frombuffer(slots[slot], np.uint8).reshape(shape).copy()
      todo.put((slot, rng.choices(range(len(paths)), k=rows)))
  finally:
    for process in processes:
      process.terminate()
      process.join()


def _work(todo, done, slots, paths, augment, mean, shape):
  fill = tuple(round(255 * m) for m in mean)
  while True:
    slot, indices = todo.get()
    rows = np.frombuffer(slots[slot], np.uint8).reshape(shape)
    for row, index in zip(rows, indices, strict=True):
      with open(paths[index], "rb") as file:
        image = Image.open(io.BytesIO(file.read())).convert("RGB")
      image = _crop(image, shape[1], augment["crop_scale"], augment["crop_ratio"])
      if random.random() < augment["flip"]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      if augment["randaugment"]:
        image = randaugment(image, fill)
      row[:] = np.asarray(image)
    done.put(slot)


def _crop(image, size, scale, ratio):
  width, height = image.size
  for _ in range(10):
    area = width * height * random.uniform(*scale)
    aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      left, top = random.randint(0, width - w), random.randint(0, height - h)
      break
  else:
    w = h = min(width, height)
    left, top = (width - w) // 2, (height - h) // 2
  return image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)


def randaugment(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
  """timm's rand-m9-mstd0.5-inc1: two operations of 15, each done with probability 0.5, at magnitudes from N(9, 0.5)."""
  for name in random.choices(timm_randaugment.INCREASING, k=2):
    if random.random() < 0.5:
      level = min(10.0, max(0.0, random.gauss(9, 0.5)))
      image = timm_randaugment.apply(name, image, level, random.choice((-1, 1)), fill)
  return image
