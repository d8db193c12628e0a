"""ImageNet-21K from the archives of image-net.org, which are read as streams and never unpacked.

Three releases, each a config: fall11 (fall11_whole.tar), winter21 (winter21_whole.tar.gz), and p
(imagenet21k_resized.tar.gz: 21K-P, Ridnik et al., arXiv 2104.10972). "winter21_256" is winter21 with the shorter side
of every image limited to 256 pixels; any number works.

Splits. fall11 and winter21 have no splits. An image is in `validation` if the first 8 hexadecimal digits of the SHA-256
of its file name are below 2^32 x 51,200 / 14,197,122, otherwise in `train`. This holds out about 51,200 images of
fall11, as many as big_vision does (but other ones), and puts an image into the same split in both releases. 21K-P's
folder val is `validation`. Its small classes are left out, as in the paper.

Labels are the sorted WordNet ids in the archive. Listing them takes a separate pass, which is fast in the plain tar but
unzips the other archives. The list is therefore stored in DATA_DIR/imagenet21k/ARCHIVE.classes.txt, and also found in
the manual directory. Each split takes another pass over the archive.

Images. Gray and RGB JPEGs are stored unchanged, unless they are resized. Other images, such as PNG and CMYK, become RGB
JPEGs of quality 95. Images that cannot be decoded are skipped. report_SPLIT.txt, next to the dataset's files, lists
skipped and re-encoded images.

If preparing is interrupted, it restarts from the first image: tfds renames its directory incomplete.* only at the end.
tfds sorts by a hash, which takes the dataset's size once more on disk.
"""

import concurrent.futures
import dataclasses
import hashlib
import io
import itertools
import os
import re

from etils import epath
from PIL import Image
import tensorflow_datasets as tfds

from mlpvision.data import image_files, transforms
from mlpvision.errors import UserError, printable
from mlpvision.prepare import archives
from mlpvision.prepare.builders import wordnet_tars

_HELD_OUT = 2**32 * archives.HELD_OUT // archives.FALL11_IMAGES
_CLASSES = {name: archives.RELEASES[f"imagenet21k/{name}"].classes for name in ("fall11", "winter21", "p")}
_QUALITY = 95
_CHUNK = 256  # images checked at a time, in threads


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
  """A release, and the shorter side in pixels to which larger images are resized (None: never)."""

  release: str
  shorter_side: int | None = None


_REGISTERED = {name: Config(name=name, release=name) for name in _CLASSES}


def config(name: str) -> Config | None:
  """The Config of "fall11", "winter21", "winter21_256" (shorter side) or "p". Raises UserError for other names."""
  match = re.fullmatch(r"(fall11|winter21)(?:_([1-9]\d*))?|p", name)
  if not match:
    names = ", ".join(f"imagenet21k/{release}" for release in _CLASSES)
    raise UserError(
      f"imagenet21k has no {name!r}: choose {names}, or limit the shorter side, as in imagenet21k/winter21_256"
    )
  # tfds requires its own objects for the registered names.
  return _REGISTERED.get(name) or Config(name=name, release=match[1], shorter_side=int(match[2]))


def is_held_out(file_name: str) -> bool:
  """Whether an image of fall11 or winter21 is in the validation split."""
  return int(hashlib.sha256(file_name.encode()).hexdigest()[:8], 16) < _HELD_OUT


def as_jpeg(data: bytes, shorter_side: int | None = None) -> tuple[bytes, str]:
  """Checks an encoded image, and re-encodes it if needed.

  Args:
    data: encoded image, in one of `image_files.FORMATS`.
    shorter_side: maximum in pixels; larger images are resized. None: no maximum.

  Returns:
    The bytes of a gray or RGB JPEG, and the reason for re-encoding ("" if unchanged or only resized).

  Raises:
    Exception: of any kind: the image cannot be decoded.
  """
  image = image_files.opened(data, "the image")
  is_fine = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L")
  is_small = shorter_side is None or min(image.size) <= shorter_side
  if is_fine and is_small:
    # Reads the whole file, so that a truncated one raises, but decodes only every eighth pixel.
    image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()
    return data, ""
  reason = "" if is_fine else f"{image.format} {image.mode}"
  image = transforms.open_image(data)
  if not is_small:
    scale = shorter_side / min(image.size)
    image = image.resize([max(shorter_side, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
  encoded = io.BytesIO()
  image.save(encoded, "JPEG", quality=_QUALITY)
  return encoded.getvalue(), reason


class Imagenet21k(tfds.core.GeneratorBasedBuilder):
  """ImageNet-21K: fall11, winter21 or 21K-P; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = list(_REGISTERED.values())
  MANUAL_DOWNLOAD_INSTRUCTIONS = "fall11_whole.tar, winter21_whole.tar.gz or imagenet21k_resized.tar.gz"

  def _info(self):
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "label": tfds.features.ClassLabel(),  # names are set after listing the archive
          "file_name": tfds.features.Text(),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://image-net.org/",
    )

  def _split_generators(self, dl_manager):
    release = self.builder_config.release
    archive = dl_manager.manual_dir / archives.RELEASES[f"imagenet21k/{release}"].archives[0].name
    names = self._list_classes(archive)
    if len(names) != _CLASSES[release]:
      print(f"{archive} has {len(names):,} classes; the published one has {_CLASSES[release]:,}. Is it complete?")
    self.info.features["label"].names = names

    def is_validation(folder, name):
      return folder == "val" if release == "p" else is_held_out(name)

    return {
      "train": self._generate_examples(archive, "train", lambda *place: not is_validation(*place)),
      "validation": self._generate_examples(archive, "validation", is_validation),
    }

  def _list_classes(self, archive):
    """The archive's classes, from a stored list if its first line has the archive's name and size."""
    first_line = f"# {archive.name}, {os.path.getsize(archive)} bytes"
    file_name = f"{archive.name}.classes.txt"
    own = epath.Path(self.data_dir_root) / self.name / file_name
    for path in (own, epath.Path(archive.parent) / file_name):
      if path.exists():
        found, *names = path.read_text().splitlines()
        if found == first_line:
          return names
    print(f"listing the classes of {archive} ...", flush=True)
    names = wordnet_tars.classes(archive)
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("\n".join([first_line, *names]) + "\n")
    return names

  def _generate_examples(self, archive, split, wanted):
    counts = {"stored": 0, "re-encoded": 0, "skipped": 0}
    path = epath.Path(self.data_dir) / f"report_{split}.txt"
    with path.open("w") as report, concurrent.futures.ThreadPoolExecutor() as pool:

      def note(kind, name, reason):
        counts[kind] += 1
        report.write(f"{kind}\t{printable(name)}\t{printable(reason)}\n")

      files = wordnet_tars.images(archive, wanted, lambda name, reason: note("skipped", name, reason))
      for wnid, of_class in itertools.groupby(files, key=lambda file: file[0]):
        seen = set()  # tfds rejects duplicate keys, but only after the last image
        while chunk := list(itertools.islice(of_class, _CHUNK)):
          for (_, name, _), (data, reason) in zip(chunk, pool.map(self._check, chunk), strict=True):
            if data is None or name in seen:
              note("skipped", name, reason if data is None else "a second file of this name")
              continue
            if reason:
              note("re-encoded", name, reason)
            seen.add(name)
            counts["stored"] += 1
            yield name, {"image": data, "label": wnid, "file_name": name}
      total = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
      report.write(f"# {split}: {total}\n")
    print(f"{self.info.full_name}, {split}: {total}; names in {path.name}", flush=True)

  def _check(self, file):
    try:
      return as_jpeg(file[2], self.builder_config.shorter_side)
    except Exception as error:  # any kind; none of 14 million files may stop it
      return None, " ".join(f"{type(error).__name__}: {error}".split())
