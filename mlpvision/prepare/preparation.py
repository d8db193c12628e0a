"""Preparing a dataset once, as array_record: checks first, then tfds. Only what tfds fetches itself needs a network."""

import base64
import os
import shutil
import threading
import urllib.parse

from etils import epath

from mlpvision.data import datasets, folder
from mlpvision.errors import UserError
from mlpvision.prepare import archives

_BYTES_PER_PIXEL = 0.7  # of a photograph's JPEG of quality 95 at 256 pixels, rounded up


def prepare(name: str, manual_dir: str | os.PathLike | None = None, data_dir: str | os.PathLike | None = None) -> str:
  """Prepares `name` under `data_dir`, printing what it does. Does nothing where it is there already.

  Args:
    name: "imagenet2012", "imagenet21k/winter21", "imagenet21k/winter21_256", "mnist5k" or any other name of tfds.
    manual_dir: where the archives lie that were fetched by hand; None: DATA_DIR/downloads/manual.
    data_dir: where tfds keeps datasets; None: what tfds would use.

  Returns:
    The flags that train on it, as one line.

  Raises:
    UserError: unknown name, an archive is missing or strange, too little disk space, it is there as tfrecord, or it
      has to be downloaded and the server cannot be reached.
  """
  data_dir = datasets.resolve_data_dir(data_dir)
  flags = f"--config.data.name={name} --config.data.data_dir={data_dir}"
  if name.startswith(folder.PREFIX):
    folder.check(name)
    print("a folder of images is read as it is: nothing to prepare", flush=True)
    return f"--config.data.name={name}"
  if datasets.find_prepared(name, data_dir) is not None:
    datasets.open_builder(name, data_dir)
    print(f"{name} is in {data_dir} already", flush=True)
    return flags
  manual_dir = epath.Path(manual_dir or data_dir / "downloads" / "manual").expanduser()
  release = archives.find(name)
  if name.partition("/")[0] == "imagenet21k" and release is None:
    releases = ", ".join(key for key in archives.RELEASES if key.startswith("imagenet21k/"))
    raise UserError(
      f"{name}: choose one of {releases}, or with a shorter side in pixels, as in imagenet21k/winter21_256"
    )
  if release is not None:
    for warning in archives.check(name, manual_dir):
      print(f"warning: {warning}", flush=True)
    _check_space(_bytes_needed(name, release, manual_dir), data_dir)
  builder = _builder(name, data_dir)
  for left in epath.Path(builder.data_path).parent.glob("incomplete.*"):
    print(f"note: {left} is left from a run that was killed; unless one is at work now, delete it", flush=True)
  _check_downloads(builder, release, manual_dir, data_dir)
  print(f"preparing {builder.data_path}; if it is interrupted, it starts again from the beginning", flush=True)
  _run(builder, manual_dir)
  for split, info in builder.info.splits.items():
    print(f"  {split}: {info.num_examples:,} images")
  return flags


def _builder(name, data_dir):
  import tensorflow_datasets as tfds

  options = {"data_dir": os.fspath(data_dir), "file_format": "array_record"}
  base, _, config = name.partition("/")
  if base == "imagenet21k":
    from mlpvision.prepare.builders import imagenet21k

    return imagenet21k.Imagenet21k(config=imagenet21k.config(config), **options)
  if name in datasets.OWN:
    return datasets.own_builder(name, data_dir)
  # Looking up a name that is not known would otherwise ask the network for datasets of the community.
  if base.partition(":")[0] not in tfds.list_builders(with_community_datasets=False):
    raise UserError(f"tfds has no dataset {name}; its names are on https://www.tensorflow.org/datasets/catalog")
  try:
    return tfds.builder(name, **options)
  except (ValueError, AssertionError) as error:
    raise UserError(f"tfds cannot open {name}: {error}") from error


def _check_downloads(builder, release, manual_dir, data_dir):
  """Finds out within five seconds what would cost tfds minutes of retries: files to download, and no network."""
  by_hand = {archive.name for archive in release.archives} if release else ()
  needed = {url: info for url, info in (builder.url_infos or {}).items() if _file_name(url, info) not in by_hand}
  missing = {url: info for url, info in needed.items() if not _is_here(url, info, builder, manual_dir, data_dir)}
  if not missing:
    return
  first = next(iter(missing))
  print(f"tfds downloads what {builder.info.full_name} needs, if it is not here already", flush=True)
  problem = _why_unreachable(first)
  if problem is None:
    return
  host = urllib.parse.urlsplit(first).hostname
  if len(missing) < len(needed) and len(builder.BUILDER_CONFIGS) > 1:  # another config's files are missing, perhaps
    print(f"warning: {host} cannot be reached ({problem}); if it is needed, tfds gives up after minutes", flush=True)
    return
  known = [f"  {info.filename} ({int(info.size):,} bytes) from {url}" for url, info in missing.items() if info.filename]
  listed = "\n".join(known[:10] + ([f"  and {len(known) - 10} more"] if known[10:] else []))
  by_hand = (
    f"\nOr put by hand into {manual_dir}, under exactly these names, what this needs of:\n{listed}" if known else ""
  )
  raise UserError(
    f"{builder.info.full_name} has to be downloaded, and {host} cannot be reached: {problem}.\nTry again with a"
    f" network, or prepare it on another machine and copy {os.path.join(data_dir, builder.name)} from there.{by_hand}"
  )


def _file_name(url, info):
  return info.filename or os.path.basename(urllib.parse.urlsplit(url).path)


def _is_here(url, info, builder, manual_dir, data_dir):
  if info.filename and (manual_dir / info.filename).exists():
    return True
  # tfds keeps a download under a name with its SHA-256 in it.
  digest = base64.urlsafe_b64encode(bytes.fromhex(info.checksum)).decode().rstrip("=")
  downloads = data_dir / "downloads"
  return any(any(folder.glob(f"*{digest}*")) for folder in (downloads, downloads / builder.name) if folder.exists())


def _why_unreachable(url):
  """None if a server answers, whatever it says, through the proxy that tfds would use too; else why not."""
  if not url.startswith("http"):
    return None
  import requests  # what tfds downloads with

  problem = ["no answer within five seconds"]

  def ask():
    try:
      requests.head(url, timeout=5)
      problem[0] = None
    except requests.RequestException as error:
      problem[0] = str(getattr(error.args[0], "reason", error) if error.args else error)

  # In a thread, since looking up a name can take longer, and takes no timeout.
  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(5)
  return problem[0]


def _run(builder, manual_dir):
  import tensorflow_datasets as tfds

  wrong_checksum = tfds.download.download_manager.NonMatchingChecksumError
  # tfds refuses a directory that is not there, even for a dataset that does not want it.
  config = tfds.download.DownloadConfig(manual_dir=os.fspath(manual_dir) if manual_dir.exists() else None)
  try:
    builder.download_and_prepare(download_config=config)
  except (AssertionError, OSError, tfds.download.DownloadError, wrong_checksum) as error:
    raise UserError(f"tfds could not prepare {builder.info.full_name}: {error}") from error


def _bytes_needed(name, release, manual_dir):
  """An estimate of the disk space that preparing takes: the images twice, because tfds sorts them on disk."""
  total = sum(os.path.getsize(manual_dir / archive.name) for archive in release.archives)
  _, _, shorter_side = name.partition("/")[2].partition("_")
  if shorter_side.isdigit():
    # winter21 has a little less: 13.15 million.
    total = min(total, archives.FALL11_IMAGES * int(shorter_side) ** 2 * 4 / 3 * _BYTES_PER_PIXEL)
  return 2 * total


def _check_space(needed, data_dir):
  if "://" in os.fspath(data_dir):
    return  # a bucket has no end
  existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
  free = shutil.disk_usage(existing).free
  if free < needed:
    raise UserError(
      f"preparing takes about {needed / 1e9:,.0f} GB in {data_dir} (half of it while it runs), and {free / 1e9:,.0f} GB"
      " are free. Choose another place with --data_dir."
    )
