"""Pieces as a pipeline of Apache Beam; tfds sorts its examples and writes the shards."""

from collections.abc import Iterator, Sequence
import json
from typing import Any

import apache_beam as beam
from etils import epath

from mlpvision.prepare.pieces import Example, Note, Source

_NOTES = "notes"


def examples(pipeline: Any, source: Source, splits: Sequence[str], notes_path: epath.Path) -> dict[str, Any]:
  """{split: collection of (key, features)}; the archives are read once. The pipeline writes the notes as JSON.

  Reading an archive is one element of the pipeline. Its pieces are then dealt out to all workers.
  """
  checked = (
    pipeline
    | "Archives" >> beam.Create([source])
    | "Read" >> beam.FlatMap(enumerate)
    | "Deal out" >> beam.Reshuffle()
    | "Check" >> beam.FlatMap(_check).with_outputs(_NOTES, *splits)
  )
  _ = (
    checked[_NOTES]
    | "Collect notes" >> beam.combiners.ToList()
    | "Write notes" >> beam.Map(_write_notes, path=notes_path)
  )
  return {split: checked[split] for split in splits}


def _check(numbered) -> Iterator[beam.pvalue.TaggedOutput]:
  number, piece = numbered
  for i, entry in enumerate(piece()):
    if isinstance(entry, Example):
      yield beam.pvalue.TaggedOutput(entry.split, (entry.key, entry.features))
    else:
      yield beam.pvalue.TaggedOutput(_NOTES, (number, i, tuple(entry)))


def _write_notes(found, path) -> None:
  notes: list[Note] = [note for *_, note in sorted(found, key=lambda entry: entry[:2])]
  path.write_text(json.dumps(notes))
