"""Opens datasets by name, from tfds, from a folder of images or from Hugging Face's library.

Nothing here accesses the network but that library, for names on its Hub.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import ml_collections

from mlpvision.data import (
  coco_folder,
  detection_records,
  directories,
  folder,
  hf_datasets,
  imagenet,
  objects,
  prepared,
  rle,
  segmentation_folder,
  segmentation_records,
)
from mlpvision.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
  """Examples by index.

  Attributes:
    source: source[i] is {"image": encoded bytes, "label": int}, plus "file_name" if the dataset has it.
    name: such as "imagenet2012:validation".
    class_names: class_names[label] is the name of a class.
    multi_label: whether labels are int arrays of all correct classes, possibly empty; for evaluation only.
    identity: equal for the same images in the same order, wherever they are stored.
    task: what the examples are for. For "segmentation", they have "segmentation", the bytes of a PNG, in place of the
      label, and source.sizes has (height, width) of the upright images: int32 [examples, 2]. For "detection", they are
      as `objects.annotations` makes them; beside source.sizes there are annotations(i), the example without its image,
      usable_counts, the number of objects of each image that training uses, category_ids, and has_masks.
  """

  source: Any
  name: str
  class_names: tuple[str, ...]
  multi_label: bool = False
  identity: str = ""
  task: str = "classification"

  def __len__(self) -> int:
    return len(self.source)

  def file_name(self, index: int) -> str:
    """Of an image in a folder, "CLASS/FILE"; "" where only reading it would tell."""
    source = self.source.source if isinstance(self.source, _Relabeled) else self.source
    return source.file_name(index) if isinstance(source, folder.Images) else ""


def is_remote(data: ml_collections.ConfigDict) -> bool:
  """Whether the examples of config.data are read over a network by address: gs://, s3://, http://, ..."""
  local = data.name.startswith((directories.PREFIX, coco_folder.PREFIX, hf_datasets.PREFIX, "/"))
  return "://" in (data.name if local or "://" in data.name else os.fspath(prepared.resolve_data_dir(data.data_dir)))


def check(name: str, data_dir: str | os.PathLike | None, *, task: str = "classification", classes: str = "") -> None:
  """Raises UserError, within milliseconds, if the dataset is not available: not prepared, not a folder, not our own."""
  if name.startswith(hf_datasets.PREFIX):
    hf_datasets.check(name, task)
    return
  if task == "detection":
    rle.check_installed()
  if name.startswith(coco_folder.PREFIX) or (name.startswith(directories.PREFIX) and task == "detection"):
    if task != "detection":
      raise UserError(f"{name} has boxes, which are for detection: set task='detection'")
    if name.startswith(directories.PREFIX):
      raise UserError(
        f"{name} is a folder of images without boxes: write {coco_folder.PREFIX}IMAGES_DIR,ANNOTATIONS.json"
      )
    coco_folder.check(name)
  elif name.startswith(directories.PREFIX) and task == "segmentation":
    segmentation_folder.check(name, classes)
  elif name.startswith(directories.PREFIX):
    folder.check(name)
  else:
    prepared.check(name, data_dir)


def of(config: ml_collections.ConfigDict, split: str, name: str = "", *, training: bool = False) -> Split:
  """Opens a split for config.task, with the options in config.data; `name` is another dataset than config.data.name.

  training: leaves out what cannot be trained on: for detection, images without objects (`objects.trainable`).

  Raises UserError: as `open_split` does; config.model has masks, and the dataset does not.
  """
  data, task = config.data, config.get("task", "classification")
  options = dict(classes=data.get("classes", ""), reduce_zero_label=data.get("reduce_zero_label", False))
  found = open_split(name or data.name, split, data.data_dir, task=task, **options)
  if task == "detection":
    if config.model.get("masks", True) and not found.source.has_masks:
      raise UserError(f"{found.name} has boxes but no masks: set --config.model.masks=False to detect boxes alone")
    return objects.trainable(found, data.max_objects) if training else found
  return found


def open_split(
  name: str,
  split: str,
  data_dir: str | os.PathLike | None = None,
  *,
  task: str = "classification",
  classes: str = "",
  reduce_zero_label: bool = False,
) -> Split:
  """Opens a split, in tfds's notation ("train[:90%]"); prepares our own datasets on first use.

  name: a tfds name ("imagenet2012", "imagenet_v2/topimages", "cifar10:3.*.*"), one of our own, the path of a prepared
    dataset, "folder:/path" (see `folder` and `segmentation_folder`), "coco:IMAGES_DIR,ANNOTATIONS.json" (see
    `coco_folder`), or "hf:OWNER/NAME" (see `hf_datasets`); data_dir: of tfds's datasets, default: tfds's own; task:
    what an example must have: a label, a label map for "segmentation", or boxes for "detection". Of segmentation
    alone: classes, a text file with the names of the classes; reduce_zero_label: whether a map's 0 is not a class.

  Raises UserError: not prepared, not as array_record, no images or labels, or no such split; for label maps, see
    `segmentation_folder.open_pairs` and `segmentation_records`; for boxes, `coco_folder.open_images` and
    `detection_records`.
  """
  if name.startswith(directories.PREFIX):
    if task == "segmentation":
      images, split = segmentation_folder.open_pairs(name, split, classes)
    else:
      images, split = folder.open_images(name, split)
    return Split(images, f"{name}:{split}", images.class_names, identity=images.digest(), task=task)
  if name.startswith(coco_folder.PREFIX):
    check(name, data_dir, task=task)
    images, split = coco_folder.open_images(name, split)
    return Split(images, f"{name}:{split}", images.class_names, identity=images.digest(), task=task)
  if name.startswith(hf_datasets.PREFIX):
    check(name, data_dir, task=task)
    images, split = hf_datasets.open_images(name, split)
    return Split(images, f"{name}:{split}", images.class_names, identity=images.digest())
  builder = prepared.open_builder(name, data_dir)
  if task == "detection":
    rle.check_installed()
    form, class_names, category_ids = detection_records.find_form(name, builder.info)
    cache = detection_records.cache(builder.data_path, split)
    source = detection_records.Images(prepared.open_records(builder, name, split), form, category_ids, cache)
    return Split(source, f"{name}:{split}", class_names, identity=f"{builder.info.full_name}:{split}", task=task)
  if task == "segmentation":
    feature = segmentation_records.find_feature(name, builder.info.features)
    class_names = segmentation_records.class_names(
      name, builder.info, feature, classes, reduce_zero_label=reduce_zero_label
    )
    source = segmentation_records.Maps(prepared.open_records(builder, name, split), feature)
    return Split(source, f"{name}:{split}", class_names, identity=f"{builder.info.full_name}:{split}", task=task)
  return _open_labeled(builder, name, split)


def _open_labeled(builder, name, split):
  features = builder.info.features
  multi_label = "real_label" in features  # ImageNet-ReaL
  label = "real_label" if multi_label else "label"
  if not {"image", label} <= set(features):
    raise UserError(f"{name} must have the features image and label; it has {', '.join(features)}")
  source = prepared.open_records(builder, name, split)
  class_names = tuple((features[label].feature if multi_label else features[label]).names)
  if multi_label:
    source = _Relabeled(source, label)
  elif builder.name in imagenet.SUBSETS and len(class_names) == 1000:
    present = imagenet.classes(imagenet.SUBSETS[builder.name])
    numbers = {wnid: i for i, wnid in enumerate(present)}
    source = _Relabeled(source, label, tuple(numbers.get(wnid) for wnid in class_names))
    class_names = present
  return Split(source, f"{name}:{split}", class_names, multi_label, f"{builder.info.full_name}:{split}")


def with_classes(split: Split, class_names: Sequence[str], owner: str) -> tuple[Split, str | None]:
  """(the split with its labels renumbered to `class_names`, a note or None): classes are matched by name.

  The split may lack classes, as a small folder `val` does. Raises UserError if it has others.

  class_names: of the training split, in its order; owner: whose classes these are, for messages.
  """
  class_names = tuple(class_names)
  if split.class_names == class_names:
    return split, None
  if split.task != "classification":
    what = "label maps need" if split.task == "segmentation" else "boxes need"
    raise UserError(
      f"{split.name} has other classes than {owner}, or the same in another order ({_some(split.class_names)};"
      f" {owner}: {_some(class_names)}); {what} the same classes in the same order"
    )
  others = [name for name in split.class_names if name not in set(class_names)]
  if others or split.multi_label:
    counts = f"{split.name} has {len(split.class_names):,} classes, {owner} has {len(class_names):,}"
    raise UserError(f"{counts}; {len(others):,} classes of {split.name} are not in {owner}: {_some(others)}")
  numbers = {name: i for i, name in enumerate(class_names)}
  source = _Relabeled(split.source, "label", tuple(numbers[name] for name in split.class_names))
  missing = [name for name in class_names if name not in set(split.class_names)]
  differs = f"lacks {len(missing):,} of the {len(class_names):,} classes ({_some(missing)})"
  note = f"{split.name} {differs if missing else 'has the classes in another order'}; they are matched by name"
  return dataclasses.replace(split, source=source, class_names=class_names), note


def _some(names):
  return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if names[5:] else "")


@dataclasses.dataclass(frozen=True)
class _Relabeled:
  """A source with labels from another field, or renumbered."""

  source: Any
  field: str
  numbers: tuple[int | None, ...] | None = None  # old label -> new label

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    example = self.source[index]
    label = example[self.field]
    if self.numbers is not None and label >= 0:  # tfds sets secret labels to -1
      label = self.numbers[label]
      if label is None:
        raise UserError("its class is not in the official list of this dataset")
    return {**example, "label": label}
