"""Small archives of ImageNet's true structure, from crops of two real photographs."""

import io
import tarfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photographs(count, size=(120, 90)):
  """`count` different crops, width x height, of scikit-learn's china.jpg and flower.jpg, as PIL images."""
  rng = np.random.default_rng(0)
  sources = load_sample_images().images
  found = []
  for i in range(count):
    source = sources[i % 2]
    y, x = rng.integers(source.shape[0] - size[1]), rng.integers(source.shape[1] - size[0])
    found.append(Image.fromarray(source[y : y + size[1], x : x + size[0]]))
  return found


def encode(image, image_format="JPEG"):
  buffer = io.BytesIO()
  image.save(buffer, image_format)
  return buffer.getvalue()


def tar(path, files, mode="w"):
  """Writes {member name: bytes} as a tar at `path` (or into a file object) and returns it."""
  with tarfile.open(mode=mode, **({"fileobj": path} if hasattr(path, "write") else {"name": path})) as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return path


def tar_bytes(files):
  return tar(io.BytesIO(), files).getvalue()
