"""Archives that must be downloaded by hand: ImageNet's, ADE20K's and COCO's releases, and their sizes."""

import dataclasses
import itertools
import os
import re
import struct
import tarfile

from etils import epath

from mlpvision import zips
from mlpvision.errors import UserError
from mlpvision.prepare import tars


@dataclasses.dataclass(frozen=True)
class Archive:
  """A published archive.

  Attributes:
    name: file name.
    size: bytes, or text such as "1.31 TB" if the exact size is not published.
    member: regex of the files at its beginning.
    example: such a file.
    sha256: of the file, in hexadecimal digits, "" if it is not published; nothing here computes it.
  """

  name: str
  size: int | str
  member: str
  example: str
  sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Release:
  """A dataset's archives, where to get them, its number of classes and {split: images}, if they are published."""

  archives: tuple[Archive, ...]
  source: str
  classes: int
  splits: dict[str, int] = dataclasses.field(default_factory=dict)


# Images of fall11 (image-net.org), and how many of them are held out on average: see builders/imagenet21k.py.
FALL11_IMAGES, HELD_OUT = 14_197_122, 51_200


_WNID = r"n\d{8}"
# Sizes in bytes are from image-net.org; those of ImageNet-21K from github.com/Alibaba-MIIL/ImageNet21K, "processing
# instructions", and image-net.org.
_TRAIN = Archive("ILSVRC2012_img_train.tar", 147_897_477_120, rf"{_WNID}\.tar", "n01440764.tar")
_VAL = Archive("ILSVRC2012_img_val.tar", 6_744_924_160, r"ILSVRC2012_val_\d{8}\.JPEG", "ILSVRC2012_val_00000001.JPEG")
_REGISTER_1K = "ImageNet-1K requires registration: https://image-net.org/download-images"
# Images and classes: arXiv 1409.0575, Table 2, for ImageNet-1K; the processing instructions for winter21 and 21K-P.
RELEASES = {
  "imagenet2012": Release((_TRAIN, _VAL), _REGISTER_1K, 1000, {"train": 1_281_167, "validation": 50_000}),
  "imagenet2012_real": Release((_VAL,), _REGISTER_1K, 1000, {"validation": 50_000}),
  "imagenet21k/fall11": Release(
    (Archive("fall11_whole.tar", "1.31 TB", rf"(.*/)?{_WNID}\.tar", "n00004475.tar"),),
    "image-net.org no longer offers the release of fall 2011; you need an old copy of the archive",
    21_841,
    {"train": FALL11_IMAGES - HELD_OUT, "validation": HELD_OUT},
  ),
  "imagenet21k/winter21": Release(
    (Archive("winter21_whole.tar.gz", "1.1 TB", rf"(.*/)?{_WNID}\.tar", "winter21_whole/n00004475.tar"),),
    "ImageNet-21K requires registration: https://image-net.org/download-images",
    19_167,
  ),
  "imagenet21k/p": Release(
    (
      Archive(
        "imagenet21k_resized.tar.gz",
        "250 GB",
        rf"(.*_)?(train|val|small_classes)/{_WNID}/[^/]+",
        "imagenet21k_resized/imagenet21k_train/n00005787/n00005787_13.JPEG",
      ),
    ),
    "ImageNet-21K-P requires registration: https://image-net.org/download-images",
    10_450,
    {"train": 11_060_223, "validation": 522_500},
  ),
  # The sizes of the splits are from github.com/CSAILVision/sceneparsing.
  "ade20k": Release(
    (
      Archive(
        "ADEChallengeData2016.zip",
        "0.97 GB",
        r"ADEChallengeData2016/.+",
        "ADEChallengeData2016/images/training/ADE_train_00000001.jpg",
      ),
    ),
    "ADE20K: http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    150,
    {"train": 20_210, "validation": 2_000},
  ),
  # Sizes and checksums are those of tfds (url_checksums/coco_captions.txt). Training uses the 117,266 of the 118,287
  # images of train2017 that have objects.
  "coco2017_instances": Release(
    (
      Archive(
        "train2017.zip",
        19_336_861_798,
        r"train2017/[^/]+\.jpg",
        "train2017/000000000009.jpg",
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
      ),
      Archive(
        "val2017.zip",
        815_585_330,
        r"val2017/[^/]+\.jpg",
        "val2017/000000000139.jpg",
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
      ),
      Archive(
        "annotations_trainval2017.zip",
        252_907_541,
        r"annotations/[^/]+\.json",
        "annotations/instances_val2017.json",
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
      ),
    ),
    "COCO 2017: https://cocodataset.org/#download",
    80,
    {"train": 117_266, "validation": 5_000},
  ),
}


def find(name: str) -> Release | None:
  """The Release of a dataset "set", "set/config" or "set/config_256", or None if tfds downloads it itself."""
  base = name.partition(":")[0]
  return RELEASES.get(re.sub(r"(/\w+)_\d+$", r"\1", base))


def how_to_get(release: Release, manual_dir: str | os.PathLike) -> str:
  """Instructions: the source of the archives, and where to put them."""
  lines = [f"{release.source}", "Needed:"]
  for archive in release.archives:
    size = archive.size if isinstance(archive.size, str) else f"{archive.size:,} bytes"
    checksum = archive.sha256 and f", SHA-256 {archive.sha256}"
    lines.append(f"  {os.path.join(manual_dir, archive.name)} ({size}{checksum})")
  return "\n".join(lines)


def check(name: str, manual_dir: str | os.PathLike) -> list[str]:
  """Checks names, sizes and beginnings of a dataset's archives, which takes milliseconds. Returns warnings.

  Raises:
    UserError: an archive is missing, empty, unreadable, or contains something else.
  """
  release = find(name)
  manual_dir = epath.Path(manual_dir)
  missing = [a.name for a in release.archives if not (manual_dir / a.name).is_file()]
  if missing:
    raise UserError(f"{name}: {' and '.join(missing)} not in {manual_dir}.\n{how_to_get(release, manual_dir)}")
  warnings = []
  for archive in release.archives:
    path = manual_dir / archive.name
    _check_beginning(path, archive)
    size = path.stat().length
    if isinstance(archive.size, int) and size != archive.size:
      warnings.append(f"{path} has {size:,} bytes; the published file has {archive.size:,}. Is the download complete?")
  return warnings


def _check_beginning(path, archive):
  kind, beginning = ("zip", _first_of_zip) if path.suffix == ".zip" else ("tar", _first_of_tar)
  try:
    first = beginning(path)
  except (*tars.DAMAGE, struct.error) as error:
    raise UserError(f"{path} cannot be read as a {kind} archive: {error}") from error
  strange = [name for name in first if not re.fullmatch(archive.member, name.removeprefix("./"))]
  if not first or strange:
    found = f"begins with {strange[0]}" if first else "is empty"
    raise UserError(f"{path} {found}; expected files like {archive.example}. Use the archive as published.")


def _first_of_tar(path):
  with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=tars.Member) as tar:
    return list(itertools.islice((member.name for member in tar if tars.is_file(member)), 3))


def _first_of_zip(path):
  return list(itertools.islice((name for name in zips.members(path) if not name.endswith("/")), 3))
