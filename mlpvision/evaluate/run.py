"""Evaluation of a trained model on a dataset."""

from collections.abc import Sequence
import os
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec as P
import ml_collections

from mlpvision import config as config_lib, preprocessing as preprocessing_lib, sharding, tasks, trained as trained_lib
from mlpvision.errors import UserError
from mlpvision.evaluate import evaluators
from mlpvision.evaluate.per_image import PerImage

# Fields that --config sets; the others belong to the weights, as do the sizes, mean and std that images are given.
_FROM_CONFIG = {
  "data": ("name", "data_dir", "train_split", "eval_split", "workers", "reads", "prefetch"),
  "eval": ("batch_size",),
}
# Of segmentation too: what label maps mean, and how an image is seen.
_FROM_CONFIG_OF_MAPS = {"data": ("classes", "reduce_zero_label"), "eval": ("mode", "stride", "scales", "flip")}


def evaluate(
  source: str | os.PathLike,
  config: ml_collections.ConfigDict | None = None,
  *,
  ema: bool | None = None,
  preprocessing: preprocessing_lib.Preprocessing | str | None = None,
  evals: Sequence[str] = ("accuracy",),
  per_image: bool = False,
) -> dict[str, Any]:
  """Exact metrics of a run or a weight file.

  Classes are matched by name; if another dataset than the run's has only some of the weights' classes, the other logits
  are ignored.

  source, ema, preprocessing: see `trained.load`.
  config: names the dataset, split, batch size and mesh; default: the run's own.
  evals: names in config.evals, or types in `evaluators.EVALUATORS`.
  per_image: of a classifier, also the results of every image.

  Returns {"weights", "step", "dataset", "preprocessing", metrics such as "images", "top1", "top5", "loss", "notes"}; of
  segmentation, the metrics are "images", "miou", "aacc" and "macc"; of detection, "images" and those of
  `tasks.detection.metrics`.
  With per_image, "per_image" is a list of dicts with `per_image.COLUMNS`, of all images with a label, in the split's
  order. "file" is "" where the dataset is no folder, "label" has "|" between several, and "probability" is that of the
  prediction.
  Notes are sentences on how classes were matched and on images without a label, which "images" does not include.

  Raises UserError: no such checkpoint, dataset or evaluator, a broken image, or classes that the weights do not have.
  """
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model) if config else sharding.make_mesh()
  trained = trained_lib.load(source, sharding=NamedSharding(mesh, P()), ema=ema, preprocessing=preprocessing)
  merged = with_dataset(trained, config)
  if per_image and (trained.task is not tasks.classification or "accuracy" not in evals):
    raise UserError("results of every image are of classifiers, with the evaluator accuracy")
  found, notes, dataset = {}, [], ""
  own = merged.get("evals", {})
  for name in evals:
    if name not in own and name not in evaluators.EVALUATORS:
      known = dict.fromkeys((*own, *evaluators.EVALUATORS))
      raise UserError(f"--evals={name}: must be one of {', '.join(known)}")
    evaluators.check_task(own.get(name, {"type": name}).get("type"), merged, f"remove {name} from --evals")
  for name in evals:
    entry, common = own.get(name, {"type": name}), (trained.model, trained.class_names, merged, mesh)
    trained_on = trained.config.data.name if trained.config else None
    options = dict(weights=str(source), trained_on=trained_on, per_image=per_image)
    evaluator, split, note = evaluators.make(entry, *common, **options)
    results = evaluator.run(trained.variables)
    found |= results
    if isinstance(evaluator, PerImage):
      found["per_image"] = evaluator.rows
    dataset = dataset or split.name
    notes += [note] if note and note not in notes else []
    if results.get("images", len(split)) < len(split):
      missing = len(split) - results["images"]
      notes.append(f"{missing:,} of {len(split):,} images have no label and are ignored")
  view = f"{trained.preprocessing}{_views(merged) if trained.task is tasks.segmentation else ''}"
  about = dict(weights=str(source), step=trained.step, dataset=dataset, preprocessing=view)
  return {**about, **found, "notes": notes}


def with_dataset(
  trained: trained_lib.Trained, config: ml_collections.ConfigDict | None = None
) -> ml_collections.ConfigDict:
  """The config for evaluating a trained model.

  For a run, this is its own config, with dataset, loader, batch size, seed and evaluators from `config` if given; for
  segmentation also the classes and meaning of label maps, and eval.mode, stride, scales and flip. For a weight file, it
  is `config`, with the weights' preprocessing and loss, and of a detector its canvas and whether it has masks.

  Raises UserError: no config for a weight file, one of another task, or a way of evaluation that the model cannot have.
  """
  if config is None and trained.config is None:
    raise UserError("a weight file needs --config to name the dataset, such as --config=configs/s2mlp_wide.py")
  has_maps = trained.task is tasks.segmentation
  if trained.config is None and tasks.of(config) is not trained.task:
    other = tasks.of(config).NOUN
    raise UserError(f"the weights are {trained.task.NOUN}, and --config is for {other}: use a config of their own task")
  merged = (config if trained.config is None else trained.config).copy_and_resolve_references()
  with merged.unlocked():
    if trained.config is None:
      merged.loss = trained.loss
      if trained.task is tasks.detection:
        own = trained.config_of_task
        merged.data.canvas, merged.model.masks = own.data.canvas, own.model.masks
    elif config is not None:
      for table in (_FROM_CONFIG, _FROM_CONFIG_OF_MAPS)[: 1 + has_maps]:
        for group, fields in table.items():
          merged[group].update({field: config[group][field] for field in fields})
      merged.seed, merged.evals = config.seed, config.evals
    preprocessing_lib.write_to(merged, trained.preprocessing)
  config_lib.check_evaluation(merged)
  if has_maps:
    tasks.segmentation.check_mode(trained.model.backbone, "the weights' backbone", merged)
  return merged


def _views(config):
  """How an image is seen, other than once and whole: as text."""
  view = config.eval
  ratios = f", at ratios {', '.join(f'{ratio:g}' for ratio in view.scales)}" if tuple(view.scales) != (1,) else ""
  windows = f", in windows of {config.data.image_size} pixels, {view.stride[0]} x {view.stride[1]} apart"
  return f"{ratios}{', also mirrored' if view.flip else ''}{windows if view.mode == 'slide' else ''}"
