"""A builder whose images are checked and written by several processes, or by Apache Beam on many machines.

tfds's own writer is one process, which restarts from the beginning. Here, processes check the pieces of the archives
(`pieces`) into parts (`parts`), and then write the shards, each with tfds's writer. Both are kept in a directory
unfinished.VERSION next to the dataset's until tfds has moved the whole dataset to its place, so that a second call
continues. Examples are in the order in which tfds shuffles, whatever the number of processes.

With Beam (`DownloadConfig.beam_options`), tfds sorts and writes: the pieces become the pipeline's examples.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import os
from typing import Any

from etils import epath
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import shard_utils

from mlpvision.errors import UserError, printable
from mlpvision.prepare import parts, processes
from mlpvision.prepare.pieces import Note, Source


class PiecewiseBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A dataset of archives that are read in pieces.

  Attributes:
    SPLITS: their names.
    KINDS: of notes, in the order in which a report counts them.
    PUBLISHED: {split: images of the published archives}; others are reported.
    processes: how many check and write, without Beam.
  """

  SPLITS: Sequence[str] = ("train", "validation")
  KINDS: Sequence[str] = ("skipped",)
  PUBLISHED: Mapping[str, int] = {}
  processes: int = 1

  @abc.abstractmethod
  def _source(self, manual_dir: epath.Path) -> Source:
    """The dataset's archives."""

  @abc.abstractmethod
  def _use(self, metadata: dict[str, Any]) -> None:
    """Takes over the metadata of a source that was read."""

  def _list(self, source: Source) -> None:
    """Completes a source's metadata without its pieces; only Beam needs it."""

  @property
  def unfinished(self) -> epath.Path:
    """The directory of what an interrupted preparation leaves."""
    return epath.Path(self.data_dir).parent / f"unfinished.{self.version}"

  def bytes_kept(self) -> int:
    """What an interrupted preparation has written."""
    files = (*self.unfinished.glob("*"), *self.unfinished.glob("shards/*"))
    return sum(path.stat().length for path in files if path.is_file())

  def _download_and_prepare(self, dl_manager, download_config):
    if download_config.beam_options or download_config.beam_runner:
      # tfds would reject repeated keys after the last image.
      download_config = dataclasses.replace(download_config, ignore_duplicates=True)
      try:
        super()._download_and_prepare(dl_manager, download_config)
      except UserError:
        raise
      except Exception as error:  # of any kind: runners have their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"Apache Beam could not prepare {self.info.full_name}: {reason}") from error
      path = self._notes_path()
      notes = [Note(*note) for note in json.loads(path.read_text())]
      path.unlink()
    else:
      with _held(self.unfinished), processes.Pool(self.processes) as pool:
        source = self._source(dl_manager.manual_dir)
        count = self._check(source, pool)
        notes = self._write(count, pool, download_config.get_shard_config() or shard_utils.ShardConfig())
    for split in self.SPLITS:
      self._report(split, [note for note in notes if note.split in (None, split)])

  def _check(self, source, pool):
    """Checks all pieces that were not yet; returns their number."""
    folder = self.unfinished
    plan, read = folder / "plan.json", folder / "read.json"
    if plan.exists() and plan.read_text() != source.identity:
      print(f"{folder} is of other archives, or of another version: starting anew", flush=True)
      for path in folder.iterdir():
        if path.is_dir():
          path.rmtree()
        elif path.name != _LOCK:
          path.unlink()
    plan.write_text(source.identity)
    if not read.exists():
      numbered = enumerate(_progress(source, desc=f"Checking {self.info.full_name}", unit=" pieces"))
      count = 0

      def tasks():
        nonlocal count
        for number, piece in numbered:
          count = number + 1
          if not parts.is_finished(folder, number):
            yield piece, folder, number, tuple(self.SPLITS)

      pool.run(parts.write, tasks())
      read.write_text(json.dumps({"pieces": count, "metadata": source.metadata}))
    found = json.loads(read.read_text())
    self._use(found["metadata"])
    return found["pieces"]

  def _write(self, count, pool, shard_config):
    """Writes the shards that are not yet, moves them to the dataset's directory, and returns the notes."""
    found, repeated, notes = parts.read_indices(self.unfinished, count, self.SPLITS)
    shards, splits = [], []
    for split, examples in found.items():
      for name in parts.keys(self.unfinished, repeated[split]):
        notes.append(Note("skipped", split, str(name), "a second file of this name"))
      number = shard_config.get_number_shards(int(examples.size.sum()), len(examples))
      ends = shard_utils.get_shard_boundaries(len(examples), number)
      template = self._get_filename_template(split_name=split)
      paths = [template.sharded_filepath(shard_index=i, num_shards=number) for i in range(number)]
      bounds = list(itertools.pairwise([0, *ends]))
      shards += [(path, examples[start:end]) for path, (start, end) in zip(paths, bounds, strict=True)]
      splits.append((split, template, [end - start for start, end in bounds], paths))
    written = self.unfinished / "shards"
    written.mkdir(exist_ok=True)
    tasks = (
      (self.unfinished, written / path.name, examples, self.info.features, self._example_writer())
      for path, examples in _progress(shards, desc=f"Writing {self.info.full_name}", unit=" shards")
      if not (written / path.name).exists()
    )
    pool.run(parts.write_shard, tasks)
    infos = []
    for split, template, lengths, paths in splits:
      for path in paths:
        (written / path.name).rename(path)
      size = sum(path.stat().length for path in paths)
      infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    self.info.set_splits(tfds.core.splits.SplitDict(infos))
    return notes

  def _post_download_and_prepare_hook(self):
    if self.unfinished.exists():
      self.unfinished.rmtree()

  def _report(self, split, notes):
    stored = self.info.splits[split].num_examples
    counts = {"stored": stored} | {kind: sum(note.kind == kind for note in notes) for kind in self.KINDS}
    total = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    path = epath.Path(self.data_dir) / f"report_{split}.txt"
    lines = [f"{note.kind}\t{printable(note.name)}\t{printable(note.reason)}\n" for note in notes]
    path.write_text("".join([*lines, f"# {split}: {total}\n"]))
    published = self.PUBLISHED.get(split, stored)
    other = "" if stored == published else f"; the published archive has {published:,}"
    print(f"{self.info.full_name}, {split}: {total}{other}; names in {path.name}", flush=True)

  # With Beam, tfds calls this.

  def _split_generators(self, dl_manager, pipeline):
    from mlpvision.prepare import beams

    source = self._source(dl_manager.manual_dir)
    self._list(source)
    self._use(source.metadata)
    return beams.examples(pipeline, source, self.SPLITS, self._notes_path())

  def _generate_examples(self):
    raise NotImplementedError  # _split_generators returns collections

  def _notes_path(self):
    return epath.Path(self.data_dir) / "notes.json"


_LOCK = "lock"
_progress = functools.partial(tfds.core.utils.tqdm, leave=False, mininterval=1.0)


@contextlib.contextmanager
def _held(folder: epath.Path) -> Iterator[None]:
  """A context that two preparations of a dataset are not in at once; in a bucket, nothing is checked."""
  folder.mkdir(parents=True, exist_ok=True)
  if "://" in os.fspath(folder):
    yield
    return
  with (folder / _LOCK).open("w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(f"{folder} is in use: another process prepares this dataset. Wait for it") from error
    yield
