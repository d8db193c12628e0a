"""Prepares a dataset as array_record: checks first, then runs tfds. Only what tfds downloads needs a network."""

import base64
import os
import shutil
import threading
import urllib.parse

from etils import epath

from mlpvision.data import coco_folder, datasets, directories, folder, hf_datasets, prepared
from mlpvision.errors import UserError
from mlpvision.prepare import archives, tars

_BYTES_PER_PIXEL = 0.7  # of a photo as a JPEG of quality 95 at 256 pixels, rounded up


def prepare(
  name: str,
  manual_dir: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
  *,
  processes: int = 1,
  beam_pipeline_options: str | None = None,
) -> str:
  """Prepares a dataset in `data_dir`, unless it is there already, and prints the progress.

  Args:
    name: "imagenet2012", "imagenet21k/winter21", "imagenet21k/winter21_256", "ade20k", "coco2017_instances", "mnist5k"
      or another name in tfds.
    manual_dir: the directory of archives downloaded by hand; None: DATA_DIR/downloads/manual.
    data_dir: the directory of datasets; None: tfds's default.
    processes: how many check and write imagenet21k, ade20k and coco2017_instances; tfds prepares the others in one.
    beam_pipeline_options: "option,option=value,..." of Apache Beam, which then does that instead; None: without Beam.

  Returns:
    The flags for training on it, as one line.

  Raises:
    UserError: unknown name, missing or unexpected archive, too little disk space, a copy as tfrecord, Beam is missing
      or not used by this dataset, or a download is needed and the server cannot be reached.
  """
  data_dir = prepared.resolve_data_dir(data_dir)
  flags = f"--config.data.name={name} --config.data.data_dir={data_dir}"
  if name.startswith(coco_folder.PREFIX):
    coco_folder.check(name)
    print("data in COCO's format needs no preparation", flush=True)
    return f"--config.data.name={name}"
  if name.startswith(hf_datasets.PREFIX):
    print(f"{name} is in the cache of the library datasets, with {', '.join(hf_datasets.prepare(name))}", flush=True)
    return f"--config.data.name={name}"
  if name.startswith(directories.PREFIX):
    folder.check(name)
    print("a folder of images needs no preparation", flush=True)
    return f"--config.data.name={name}"
  if prepared.find(name, data_dir) is not None:
    prepared.open_builder(name, data_dir)
    print(f"{name} is already in {data_dir}", flush=True)
    return flags
  manual_dir = epath.Path(manual_dir or data_dir / "downloads" / "manual").expanduser()
  release = archives.find(name)
  if release is not None:
    for warning in archives.check(name, manual_dir):
      print(f"warning: {warning}", flush=True)
  builder = _builder(name, data_dir)
  beam_options = _beam_options(builder, beam_pipeline_options)
  if release is not None:
    kept = builder.bytes_kept() if _is_piecewise(builder) else 0
    _check_space(_bytes_needed(name, release, manual_dir) - kept, data_dir)
  for left in epath.Path(builder.data_path).parent.glob("incomplete.*"):
    print(f"note: {left} is from an interrupted preparation; unless another one is running, delete it", flush=True)
  _check_downloads(builder, release, manual_dir, data_dir)
  continues = _is_piecewise(builder) and beam_options is None
  then = "the same command continues" if continues else "it restarts from the beginning"
  print(f"preparing {builder.data_path}; if interrupted, {then}", flush=True)
  if _is_piecewise(builder):
    builder.processes = processes
  _run(builder, release, manual_dir, beam_options)
  for split, info in builder.info.splits.items():
    print(f"  {split}: {info.num_examples:,} images")
    if name == "coco2017_instances":  # the first run would wait for these
      _ = datasets.open_split(name, split, data_dir, task="detection").source.sizes
  return flags


def _builder(name, data_dir):
  import tensorflow_datasets as tfds

  options = {"data_dir": os.fspath(data_dir), "file_format": "array_record"}
  base, _, config = name.partition("/")
  if base == "imagenet21k":
    from mlpvision.prepare.builders import imagenet21k

    return imagenet21k.Imagenet21k(config=imagenet21k.config(config), **options)
  if name == "ade20k":
    from mlpvision.prepare.builders import ade20k

    return ade20k.Ade20k(**options)
  if name == "coco2017_instances":
    from mlpvision.data import rle
    from mlpvision.prepare.builders import coco2017_instances

    rle.check_installed()
    return coco2017_instances.Coco2017Instances(**options)
  if name in prepared.OWN:
    return prepared.own_builder(name, data_dir)
  # For an unknown name, tfds.builder would search community datasets on the network.
  if base.partition(":")[0] not in tfds.list_builders(with_community_datasets=False):
    raise UserError(f"tfds has no dataset {name}; see the list on https://www.tensorflow.org/datasets/catalog")
  try:
    return tfds.builder(name, **options)
  except (ValueError, AssertionError) as error:
    raise UserError(f"tfds cannot open {name}: {error}") from error


def _is_piecewise(builder):
  from mlpvision.prepare import piecewise

  return isinstance(builder, piecewise.PiecewiseBuilder)


def _beam_options(builder, text):
  """Beam's options, from the text of tfds's flag of the same name; None without it."""
  if text is None:
    return None
  if not _is_piecewise(builder):
    raise UserError(f"{builder.name} is not prepared with Apache Beam: leave --beam_pipeline_options out")
  try:
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise UserError("--beam_pipeline_options needs Apache Beam: pip install 'mlpvision[beam]'") from error
  return pipeline_options.PipelineOptions(flags=[f"--{option}" for option in text.split(",")])


def _check_downloads(builder, release, manual_dir, data_dir):
  """Fails within five seconds if files must be downloaded and there is no network; tfds would retry for minutes."""
  by_hand = {archive.name for archive in release.archives} if release else ()
  needed = {url: info for url, info in (builder.url_infos or {}).items() if _file_name(url, info) not in by_hand}
  missing = {url: info for url, info in needed.items() if not _is_here(url, info, builder, manual_dir, data_dir)}
  if not missing:
    return
  first = next(iter(missing))
  print(f"tfds downloads missing files of {builder.info.full_name}", flush=True)
  problem = _why_unreachable(first)
  if problem is None:
    return
  host = urllib.parse.urlsplit(first).hostname
  if len(missing) < len(needed) and len(builder.BUILDER_CONFIGS) > 1:  # they may belong to another config
    print(f"warning: {host} cannot be reached ({problem}); if it is needed, tfds fails after minutes", flush=True)
    return
  message = (
    f"{builder.info.full_name} must be downloaded, and {host} cannot be reached: {problem}.\nTry again with a network,"
    f" or prepare it on another machine and copy {os.path.join(data_dir, builder.name)} from there."
  )
  files = [f"  {info.filename} ({int(info.size):,} bytes) from {url}" for url, info in missing.items() if info.filename]
  if files:
    more = [f"  and {len(files) - 10} more"] if files[10:] else []
    message += f"\nOr put those of these files that it needs into {manual_dir}, under exactly these names:\n"
    message += "\n".join(files[:10] + more)
  raise UserError(message)


def _file_name(url, info):
  return info.filename or os.path.basename(urllib.parse.urlsplit(url).path)


def _is_here(url, info, builder, manual_dir, data_dir):
  if info.filename and (manual_dir / info.filename).exists():
    return True
  # tfds stores a download under a name that contains its SHA-256.
  digest = base64.urlsafe_b64encode(bytes.fromhex(info.checksum)).decode().rstrip("=")
  downloads = data_dir / "downloads"
  return any(any(folder.glob(f"*{digest}*")) for folder in (downloads, downloads / builder.name) if folder.exists())


def _why_unreachable(url):
  """None if the server sends any answer, through the proxy that tfds uses; otherwise the reason."""
  if not url.startswith("http"):
    return None
  import requests  # as tfds does

  problem = ["no answer within five seconds"]

  def ask():
    try:
      requests.head(url, timeout=5)
      problem[0] = None
    except requests.RequestException as error:
      problem[0] = str(getattr(error.args[0], "reason", error) if error.args else error)

  # In a thread, since name resolution can take longer and has no timeout.
  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(5)
  return problem[0]


def _run(builder, release, manual_dir, beam_options):
  import tensorflow_datasets as tfds

  wrong_checksum = tfds.download.download_manager.NonMatchingChecksumError
  # tfds rejects a missing directory even if the dataset does not use it.
  manual_dir_or_none = os.fspath(manual_dir) if manual_dir.exists() else None
  config = tfds.download.DownloadConfig(manual_dir=manual_dir_or_none, beam_options=beam_options)
  try:
    with tars.checked():
      builder.download_and_prepare(download_config=config)
  except (AssertionError, tfds.download.DownloadError, wrong_checksum, *tars.DAMAGE) as error:
    archive_names = " and ".join(archive.name for archive in release.archives) if release else ""
    where = archive_names and f" from {archive_names} in {manual_dir}"
    raise UserError(
      f"tfds could not prepare {builder.info.full_name}{where}: {error or type(error).__name__}"
    ) from error


def _bytes_needed(name, release, manual_dir):
  """Estimated disk space for preparing: twice the images, because they are sorted on disk."""
  total = sum((manual_dir / archive.name).stat().length for archive in release.archives)
  _, _, shorter_side = name.partition("/")[2].partition("_")
  if shorter_side.isdigit():
    # winter21 has slightly fewer images: 13.15 million.
    total = min(total, archives.FALL11_IMAGES * int(shorter_side) ** 2 * 4 / 3 * _BYTES_PER_PIXEL)
  return 2 * total


def _check_space(needed, data_dir):
  if "://" in os.fspath(data_dir):
    return  # a bucket has no limit
  existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
  free = shutil.disk_usage(existing).free
  if free < needed:
    raise UserError(
      f"preparing takes about {needed / 1e9:,.0f} GB in {data_dir} (half of it temporarily), but only"
      f" {free / 1e9:,.0f} GB are free. Choose another directory with --data_dir."
    )
