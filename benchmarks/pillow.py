"""The way of PyTorch's DataLoader with timm's transforms, as a contestant: Pillow in worker processes.

Each worker takes the indices of a batch from a queue, reads the files, decodes, crops, flips and augments with Pillow,
and leaves uint8 pixels in shared memory, as timm's fast collation does.
"""

from collections.abc import Iterator, Mapping, Sequence
import io
import math
import multiprocessing
import random
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_AHEAD = 2  # batches per worker, as DataLoader's prefetch_factor
_PATIENCE = 120  # seconds for a batch, before a worker must have died


def batches(config: Mapping[str, Any], paths: Sequence[str], workers: int) -> Iterator[np.ndarray]:
  """Batches of random files, given the config as a dict."""
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
  for operation in random.choices(_OPERATIONS, k=2):
    if random.random() < 0.5:
      magnitude = min(10.0, max(0.0, random.gauss(9, 0.5))) / 10
      image = operation(image, magnitude, random.choice((-1, 1)), fill)
  return image


def _affine(image, matrix, fill):
  return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)


def _solarize_add(image, amount):
  table = [min(255, value + amount) if value < 128 else value for value in range(256)]
  return image.point(table * 3)


def _enhance(kind):
  return lambda image, m, sign, fill: kind(image).enhance(max(0.1, 1 + sign * 0.9 * m))


# Each (image, magnitude in [0, 1], sign, fill) -> image.
_OPERATIONS = (
  lambda image, m, sign, fill: ImageOps.autocontrast(image),
  lambda image, m, sign, fill: ImageOps.equalize(image),
  lambda image, m, sign, fill: ImageOps.invert(image),
  lambda image, m, sign, fill: image.rotate(sign * 30 * m, Image.Resampling.BICUBIC, fillcolor=fill),
  lambda image, m, sign, fill: ImageOps.posterize(image, max(1, 4 - int(4 * m))),
  lambda image, m, sign, fill: ImageOps.solarize(image, 256 - min(256, int(256 * m))),
  lambda image, m, sign, fill: _solarize_add(image, min(128, int(110 * m))),
  _enhance(ImageEnhance.Color),
  _enhance(ImageEnhance.Contrast),
  _enhance(ImageEnhance.Brightness),
  _enhance(ImageEnhance.Sharpness),
  lambda image, m, sign, fill: _affine(image, (1, sign * 0.3 * m, 0, 0, 1, 0), fill),
  lambda image, m, sign, fill: _affine(image, (1, 0, 0, sign * 0.3 * m, 1, 0), fill),
  lambda image, m, sign, fill: _affine(image, (1, 0, sign * 0.45 * m * image.width, 0, 1, 0), fill),
  lambda image, m, sign, fill: _affine(image, (1, 0, 0, 0, 1, sign * 0.45 * m * image.height), fill),
)
