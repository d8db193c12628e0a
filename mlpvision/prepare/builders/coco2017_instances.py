"""COCO 2017 with instance masks, 80 classes (Lin et al., arXiv 1405.0312), from its archives, which are not unpacked.

Images are stored as the archives have them; boxes, areas and crowds as the annotations have them. Masks are stored as
compressed RLEs, made from polygons and uncompressed RLEs by pycocotools, as mmdetection does. The labels are the ranks
of the categories' ids, which are in the metadata. Images without objects are stored, too.

An image is skipped if it cannot be decoded, or has another size than the annotations say. report_SPLIT.txt, next to
the dataset's files, lists those.
"""

import concurrent.futures
import itertools

from etils import epath
import numpy as np
import tensorflow_datasets as tfds

from mlpvision.data import coco_json, image_files, transforms
from mlpvision.errors import UserError, printable
from mlpvision.prepare import archives
from mlpvision.prepare.members import open_archive, read_member

_RELEASE = archives.RELEASES["coco2017_instances"]
_SPLITS = {"train": "train2017", "validation": "val2017"}
_ANNOTATIONS = "annotations_trainval2017.zip"
_IMAGES = {"train": 118_287, "validation": 5_000}  # of the published archives
_CHUNK = 128  # images checked at a time, in threads
_MAX_JSON, _MAX_FILE = 2**30, 2**25  # bytes of an annotation file, and of an image


class Coco2017Instances(tfds.core.GeneratorBasedBuilder):
  """COCO 2017 for detection and instance segmentation; see the module's description."""

  VERSION = tfds.core.Version("1.0.0")
  MANUAL_DOWNLOAD_INSTRUCTIONS = ", ".join(archive.name for archive in _RELEASE.archives)

  def _info(self):
    numbers = tfds.features.Tensor
    return self.dataset_info_from_configs(
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "image_id": numbers(shape=(), dtype=np.int64),
          "file_name": tfds.features.Text(),
          # Of each object: left, top, width and height in pixels.
          "xywh": numbers(shape=(None, 4), dtype=np.float64),
          "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=_RELEASE.classes)),
          "areas": numbers(shape=(None,), dtype=np.float64),
          "crowd": tfds.features.Sequence(np.bool_),
          "ids": numbers(shape=(None,), dtype=np.int64),
          "masks": tfds.features.Sequence(tfds.features.Text()),  # the counts of RLEs of the image's size
        }
      ),
      homepage="https://cocodataset.org",
      metadata=tfds.core.MetadataDict(),  # category_ids are those of the classes
    )

  def _split_generators(self, dl_manager):
    path = dl_manager.manual_dir / _ANNOTATIONS
    members = open_archive(path)
    found = {split: _annotations(path, members, folder) for split, folder in _SPLITS.items()}
    names, ids = found["train"].class_names, found["train"].category_ids
    if any((other.class_names, other.category_ids) != (names, ids) for other in found.values()):
      raise UserError(f"{path}: its splits have different categories. Use the archive as published")
    if len(names) != _RELEASE.classes:
      raise UserError(f"{path} has {len(names)} categories; expected {_RELEASE.classes}. Use the archive as published")
    self.info.features["labels"].feature.names = names
    self.info.metadata["category_ids"] = list(ids)
    return {
      split: self._generate_examples(split, open_archive(dl_manager.manual_dir / f"{folder}.zip"), found[split])
      for split, folder in _SPLITS.items()
    }

  def _generate_examples(self, split, members, annotations):
    counts, indices = {"stored": 0, "skipped": 0}, iter(range(len(annotations.table)))
    report_path = epath.Path(self.data_dir) / f"report_{split}.txt"
    with report_path.open("w") as report, concurrent.futures.ThreadPoolExecutor() as pool:
      while chunk := list(itertools.islice(indices, _CHUNK)):
        images = pool.map(lambda index: _checked(members, _SPLITS[split], annotations, index), chunk)
        for index, (image, problem) in zip(chunk, images, strict=True):
          name, found = annotations.file_names[index], annotations.table.annotations(index)
          counts["skipped" if problem else "stored"] += 1
          if problem:
            report.write(f"skipped\t{printable(name)}\t{printable(problem)}\n")
            continue
          columns = {key: found[key] for key in ("image_id", "xywh", "areas", "ids")}
          masks = [mask["counts"] for mask in found["masks"]]
          lists = {"labels": found["labels"].tolist(), "crowd": found["crowd"].tolist(), "masks": masks}
          yield found["image_id"], {"image": image, "file_name": name, **columns, **lists}
      total = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
      report.write(f"# {split}: {total}\n")
    published = _IMAGES[split]
    note = "" if counts["stored"] == published else f"; the published archive has {published:,}"
    print(f"{self.info.full_name}, {split}: {total}{note}; names in {report_path.name}", flush=True)


def _annotations(path, members, folder):
  name = f"annotations/instances_{folder}.json"
  try:
    data = read_member(members, name, _MAX_JSON)
  except image_files.ImageError as error:
    raise UserError(f"{path}: {error}. Use the archive as published") from error
  found = coco_json.parse(coco_json.loads(data, f"{path}: {name}"), f"{path}: {name}")
  if found.table.counts is None:
    raise UserError(f"{path}: {name} has objects without masks. Use the archive as published")
  return found


def _checked(members, folder, annotations, index):
  """(bytes of an image, "") or (None, what is wrong with it)."""
  try:
    data = read_member(members, f"{folder}/{annotations.file_names[index]}", _MAX_FILE)
    (height, width), size = transforms.decode(data).shape[:2], annotations.table.sizes[index].tolist()
    if [height, width] != size:
      return None, f"has {width} x {height} pixels, but {size[1]} x {size[0]} in the annotations"
    return data, ""
  except UserError as error:
    return None, " ".join(str(error).split())
