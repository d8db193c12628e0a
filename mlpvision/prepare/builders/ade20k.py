"""ADE20K for scene parsing, 150 classes, from ADEChallengeData2016.zip (Zhou et al., CVPR 2017), which is not unpacked.

Images and label maps are stored as the archive has them. In a map, 0 marks pixels of no class and class i is stored as
i + 1: set data.reduce_zero_label. The classes and their order are those of the archive's objectInfo150.txt; each has
the first of its names.

A pair is skipped if the image or the map cannot be decoded, the map is of another kind or size, or has an unknown
index. report_SPLIT.txt, next to the dataset's files, lists those.
"""

import concurrent.futures
import itertools
import os
import re

from etils import epath
import tensorflow_datasets as tfds

from mlpvision import zips
from mlpvision.data import image_files, label_maps, transforms
from mlpvision.errors import UserError, printable
from mlpvision.prepare import archives
from mlpvision.prepare.members import open_archive, read_member

_ROOT = "ADEChallengeData2016"
_FOLDERS = {"train": "training", "validation": "validation"}
_RELEASE = archives.RELEASES["ade20k"]
_NO_CLASS = "other"  # the name of 0 in a map
_CHUNK = 128  # pairs checked at a time, in threads
_LINE = re.compile(r"\s*(\d+)\s+[\d.]+\s+\d+\s+\d+\s+(\S.*)")  # number, ratio, images of both splits, names
_MAX_TEXT, _MAX_FILE = 2**20, 2**25  # bytes of the list of classes, and of an image or a map


class Ade20k(tfds.core.GeneratorBasedBuilder):
  """ADE20K's scene parsing benchmark; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = _RELEASE.archives[0].name

  def _info(self):
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "segmentation": tfds.features.Image(shape=(None, None, 1), encoding_format="png", use_colormap=True),
          "file_name": tfds.features.Text(),
        }
      ),
      supervised_keys=("image", "segmentation"),
      homepage="http://sceneparsing.csail.mit.edu/",
      metadata=tfds.core.MetadataDict(),  # its label_names name the values of a map
    )

  def _split_generators(self, dl_manager):
    path = dl_manager.manual_dir / _RELEASE.archives[0].name
    members = open_archive(path)
    names = class_names(path, members)
    self.info.metadata["label_names"] = [_NO_CLASS, *names]
    return {split: self._generate_examples(members, split, len(names)) for split in _FOLDERS}

  def _generate_examples(self, members, split, num_classes):
    folder, counts = _FOLDERS[split], {"stored": 0, "skipped": 0}
    images = re.compile(rf"{_ROOT}/images/{folder}/([^/]+)\.jpg")
    stems = iter(sorted(match[1] for name in members if (match := images.fullmatch(name))))
    report_path = epath.Path(self.data_dir) / f"report_{split}.txt"
    with report_path.open("w") as report, concurrent.futures.ThreadPoolExecutor() as pool:
      while chunk := list(itertools.islice(stems, _CHUNK)):
        pairs = pool.map(lambda stem: _checked(members, folder, stem, num_classes), chunk)
        for stem, (pair, problem) in zip(chunk, pairs, strict=True):
          counts["skipped" if problem else "stored"] += 1
          if problem:
            report.write(f"skipped\t{printable(stem)}.jpg\t{printable(problem)}\n")
          else:
            yield stem, {**pair, "file_name": f"{stem}.jpg"}
      total = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
      report.write(f"# {split}: {total}\n")
    published = _RELEASE.splits[split]
    note = "" if counts["stored"] == published else f"; the published archive has {published:,}"
    print(f"{self.info.full_name}, {split}: {total}{note}; names in {report_path.name}", flush=True)


def class_names(path: str | os.PathLike, members: dict[str, zips.Member]) -> list[str]:
  """The names of the classes, in order. Raises UserError if the archive does not list them."""
  name = f"{_ROOT}/objectInfo150.txt"
  try:
    text = read_member(members, name, _MAX_TEXT).decode()
  except (image_files.ImageError, UnicodeDecodeError) as error:
    raise UserError(f"{path}: {name} cannot be read: {error}. Use the archive as published") from error
  lines = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
  names = [match[2].partition(",")[0].strip() for match in lines]
  if [int(match[1]) for match in lines] != list(range(1, len(lines) + 1)) or len(names) != _RELEASE.classes:
    raise UserError(
      f"{path}: {name} has {len(names)} lines of classes, or not in order; expected {_RELEASE.classes}, such as"
      ' "1  0.1576  11664  1172  wall". Use the archive as published'
    )
  return names


def _checked(members, folder, stem, num_classes):
  """({"image", "segmentation"}, "") of a pair, or (None, what is wrong with it)."""
  try:
    image = read_member(members, f"{_ROOT}/images/{folder}/{stem}.jpg", _MAX_FILE)
    data = read_member(members, f"{_ROOT}/annotations/{folder}/{stem}.png", _MAX_FILE)
    labels = label_maps.decode(data)
    label_maps.check_size(labels.shape, transforms.decode(image).shape[:2])
    label_maps.indices(labels, num_classes, reduce_zero=True)
    return {"image": image, "segmentation": data}, ""
  except UserError as error:
    return None, " ".join(str(error).split())
