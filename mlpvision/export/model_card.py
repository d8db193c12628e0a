"""The model card of an exported model: a README.md as the Hugging Face Hub shows it."""

from collections.abc import Mapping
import json
import os
from typing import Any

import jax

from mlpvision import __version__, tasks
from mlpvision.errors import printable
from mlpvision.export import timm_config
from mlpvision.reporting import metrics as metrics_lib
from mlpvision.trained import Trained

_PIPELINES = {
  "classification": "image-classification",
  "segmentation": "image-segmentation",
  "detection": "object-detection",
}
_NAME = "OWNER/NAME"


def text(trained: Trained, *, license_name: str | None = None, ema: bool = False, repository: str = _NAME) -> str:
  """The card: the architecture, the data, the metrics, how to use it, and the license.

  license_name: one of the Hub's, such as "apache-2.0". ema: whether the parameters are the EMA's. repository: on the
  Hub. What is not known is said to be.
  """
  theirs = timm_config.architecture(trained.model, trained.preprocessing.image_size)
  task = _PIPELINES[tasks.name_of(trained.model)]
  results, name = _metrics(trained, ema), trained.model_name
  header = {
    "library_name": "timm" if theirs else "mlpvision",
    "pipeline_tag": task,
    "tags": [task, "mlpvision", "jax", *(["timm"] if theirs else [])],
  }
  if license_name:
    header["license"] = license_name
  if trained.config is not None and results:
    header["model-index"] = [{"name": name, "results": [_result(trained, task, results)]}]
  lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", f"# {name}", ""]
  lines += [f"{tasks.of({'task': tasks.name_of(trained.model)}).NOUN.capitalize()}, made with mlpvision.", ""]
  lines += _section("Architecture", _architecture(trained, theirs))
  lines += _section("Data", _data(trained))
  lines += _section("Metrics", _list(results) if results else _no_metrics(trained))
  lines += ["## Use", ""]
  lines += _code("bash", "pip install 'mlpvision[hub]'", f"mlpvision predict --weights=hf://{repository} photo.jpg")
  lines += _code("python", "import mlpvision", "", f'trained = mlpvision.load("hf://{repository}")')
  if theirs:
    lines += _code("python", "import timm", "", f'model = timm.create_model("hf-hub:{repository}", pretrained=True)')
  if trained.config is not None:
    lines += ["## Training", "", *_training(trained, ema)]
  lines += _section("License", license_name or "Not stated.")
  return "\n".join(lines)


def _section(title, body):
  return [f"## {title}", "", body, ""]


def _code(language, *lines):
  return [f"```{language}", *lines, "```", ""]


def _list(facts: Mapping[str, Any]):
  return "\n".join(f"- {printable(str(key))}: {printable(str(value))}" for key, value in facts.items())


def _architecture(trained, theirs):
  model, count = trained.model, sum(leaf.size for leaf in jax.tree.leaves(trained.params))
  facts = {"model": f"`{trained.model_name}`, {type(model).__name__}", "parameters": f"{count:,}"}
  facts["outputs"] = f"{model.num_classes or 0:,} classes"
  facts["images"] = trained.preprocessing
  if theirs:
    note = "; timm computes GELU exactly, this model its tanh approximation: logits differ slightly"
    facts["timm"] = f"`{theirs.name}`{note if getattr(model, 'approximate_gelu', False) else ''}"
  else:
    facts["timm"] = "has no architecture that computes this"
  return _list(facts)


def _data(trained):
  config, entry = trained.config, trained.info and trained.info.entry
  if config is not None:
    return (
      f"Trained on `{printable(_without_folders(config.data.name))}`, split `{printable(config.data.train_split)}`."
    )
  if entry is not None:
    return f"These are the published weights `{entry.name}`, from {entry.page}. {entry.note}".strip()
  return "Not stated: exported from a weight file."


def _metrics(trained, ema):
  """{name: number} of the evaluation at the checkpoint's step; of known weights, the published accuracy."""
  if trained.config is None:
    entry = trained.info and trained.info.entry
    return {f"top-1 on ImageNet-1K, {entry.source}": f"{entry.top1} %"} if entry and entry.top1 else {}
  rows = [row for row in metrics_lib.read(_workdir(trained.source)) if row["step"] == trained.step]
  found = {}
  for name, value in (item for row in rows for item in row.items()):
    group, _, metric = name.partition("/")
    short = metric.removeprefix("ema_")
    if group in trained.config.evals and short != "images" and metric.startswith("ema_") == ema:
      found[f"{group}/{short}"] = round(value, 4)
  return found


def _workdir(source):
  """Of a run, or of one of its checkpoints."""
  parent, step = os.path.split(source.rstrip("/"))
  return os.path.dirname(parent) if step.isdigit() and os.path.basename(parent) == "checkpoints" else source


def _no_metrics(trained):
  return "Not stated." if trained.config is None else f"Not evaluated at step {trained.step:,}."


def _result(trained, task, results):
  data, name = trained.config.data, _without_folders(trained.config.data.name)
  return {
    "task": {"type": task},
    "dataset": {"name": name, "type": name.partition("/")[0], "split": data.eval_split},
    "metrics": [{"type": name.partition("/")[2], "name": name, "value": value} for name, value in results.items()],
  }


def _training(trained, ema):
  made = (
    f"With mlpvision {__version__}, to step {trained.step:,}: `mlpvision train --config=FILE.py`, with these fields."
  )
  which = " The weights are the EMA of the parameters." if ema else ""
  return [made + which, "", *_code("json", json.dumps(_public(trained.config), indent=1).replace("```", ""))]


def _public(config):
  """The fields of a config without the names of directories, which are of no use to others."""
  fields = json.loads(config.to_json_best_effort())
  fields["data"].pop("data_dir", None)
  fields["data"]["name"] = _without_folders(fields["data"]["name"])
  fields["init_from"] = _without_folders(fields.get("init_from", ""))
  return fields


def _without_folders(name):
  """Of "folder:/path/to/images", "folder:images"; of a name that is no path, the name."""
  kind, colon, path = name.rpartition(":")
  return f"{kind}{colon}{os.path.basename(path.rstrip('/'))}" if os.path.isabs(path) else name
