"""ImageNet-21K from the archives of image-net.org, which are read as streams and never unpacked.

Three releases, each a config: fall11 (fall11_whole.tar), winter21 (winter21_whole.tar.gz), and p
(imagenet21k_resized.tar.gz: 21K-P, Ridnik et al., arXiv 2104.10972). "winter21_256" is winter21 with the shorter side
of every image limited to 256 pixels; any number works.

Splits. fall11 and winter21 have no splits. An image is in `validation` if the first 8 hexadecimal digits of the SHA-256
of its file name are below 2^32 x 51,200 / 14,197,122, otherwise in `train`. This holds out about 51,200 images of
fall11, as many as big_vision does (but other ones), and puts an image into the same split in both releases. 21K-P's
folder val is `validation`. Its small classes are left out, as in the paper.

Labels are the sorted WordNet ids in the archive, which is read in one pass, for both splits and for the classes. A
plain tar is cut between its members, and several processes read it at once; a gzipped one is unzipped by one process,
which deals out the images. With Beam, the classes are needed first: listing them unzips a gzipped archive once more.
The list is then stored in DATA_DIR/imagenet21k/ARCHIVE.classes.txt, and also found in the manual directory.

Images. Gray and RGB JPEGs are stored unchanged, unless they are resized. Other images, such as PNG and CMYK, become RGB
JPEGs of quality 95. Images that cannot be decoded are skipped. report_SPLIT.txt, next to the dataset's files, lists
skipped and re-encoded images.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import io
import json
import re

from etils import epath
from PIL import Image
import tensorflow_datasets as tfds

from mlpvision.data import image_files, transforms
from mlpvision.errors import UserError
from mlpvision.prepare import archives
from mlpvision.prepare.builders import wordnet_tars
from mlpvision.prepare.pieces import Example, Note
from mlpvision.prepare.piecewise import PiecewiseBuilder

_HELD_OUT = 2**32 * archives.HELD_OUT // archives.FALL11_IMAGES
_CLASSES = {name: archives.RELEASES[f"imagenet21k/{name}"].classes for name in ("fall11", "winter21", "p")}
_QUALITY = 95
_PIECE = 128 * 2**20  # fewest bytes of the archive in a piece, but for the last


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


@dataclasses.dataclass(frozen=True)
class _Piece:
  """Images of an archive: a slice of it, or files that were read already, with the notes of reading them."""

  archive: epath.Path
  config: Config
  part: tuple[int, int] | None = None
  files: tuple[tuple[str, str, str, bytes], ...] = ()
  notes: tuple[Note, ...] = ()

  def __call__(self) -> Iterator[Example | Note]:
    notes = list(self.notes)
    files = self.files
    if self.part:
      files = wordnet_tars.images(self.archive, lambda *problem: notes.append(_note(*problem)), self.part)
    for folder, wnid, name, data in files:
      yield from notes
      notes.clear()
      split = _split(folder, name)
      try:
        image, reason = as_jpeg(data, self.config.shorter_side)
      except Exception as error:  # any kind; none of 14 million files may stop it
        yield Note("skipped", split, name, " ".join(f"{type(error).__name__}: {error}".split()))
        continue
      if reason:
        yield Note("re-encoded", split, name, reason)
      yield Example(split, name, {"image": image, "label": wnid, "file_name": name})
    yield from notes


class _Archive:
  """The source of pieces; see `mlpvision.prepare.pieces.Source`."""

  def __init__(self, path: epath.Path, config: Config) -> None:
    self.path, self._config, self.metadata = path, config, {}
    size = path.stat().length
    self.identity = json.dumps([path.name, size, config.name, _PIECE, _QUALITY])

  def __iter__(self) -> Iterator[_Piece]:
    if wordnet_tars.is_gzip(self.path):
      return self._unzipped()
    names, slices = wordnet_tars.slices(self.path, _PIECE)
    self.metadata["names"] = names
    return (_Piece(self.path, self._config, part) for part in slices)

  def _unzipped(self):
    files, notes, found, size = [], [], set(), 0
    for file in wordnet_tars.images(self.path, lambda *problem: notes.append(_note(*problem)), found=found):
      files.append(file)
      size += len(file[-1])
      if size >= _PIECE:
        yield _Piece(self.path, self._config, None, tuple(files), tuple(notes))
        size = 0
        files.clear()
        notes.clear()
    yield _Piece(self.path, self._config, None, tuple(files), tuple(notes))
    self.metadata["names"] = wordnet_tars.sorted_classes(found, self.path)


def _split(folder, name):
  is_validation = folder == "val" if folder else is_held_out(name)
  return "validation" if is_validation else "train"


def _note(folder, name, reason):
  """A problem of reading; that of a class concerns both splits."""
  return Note("skipped", None if name.endswith(".tar") else _split(folder, name), name, reason)


class Imagenet21k(PiecewiseBuilder):
  """ImageNet-21K: fall11, winter21 or 21K-P; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = list(_REGISTERED.values())
  MANUAL_DOWNLOAD_INSTRUCTIONS = "fall11_whole.tar, winter21_whole.tar.gz or imagenet21k_resized.tar.gz"
  KINDS = ("re-encoded", "skipped")

  def _info(self):
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "label": tfds.features.ClassLabel(),  # names are set after reading the archive
          "file_name": tfds.features.Text(),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://image-net.org/",
    )

  def _source(self, manual_dir):
    release = archives.RELEASES[f"imagenet21k/{self.builder_config.release}"]
    return _Archive(epath.Path(manual_dir) / release.archives[0].name, self.builder_config)

  def _use(self, metadata):
    names, release = metadata["names"], self.builder_config.release
    if len(names) != _CLASSES[release]:
      print(f"found {len(names):,} classes; the published archive has {_CLASSES[release]:,}. Is yours complete?")
    self.info.features["label"].names = names

  def _list(self, source):
    """Takes the classes from a stored list, if its first line has the archive's name and size."""
    archive = source.path
    first_line, file_name = f"# {archive.name}, {archive.stat().length} bytes", f"{archive.name}.classes.txt"
    own = epath.Path(self.data_dir_root) / self.name / file_name
    for path in (own, archive.parent / file_name):
      if path.exists():
        found, *names = path.read_text().splitlines()
        if found == first_line:
          source.metadata["names"] = names
          return
    print(f"listing the classes of {archive} ...", flush=True)
    names = wordnet_tars.classes(archive)
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("\n".join([first_line, *names]) + "\n")
    source.metadata["names"] = names
