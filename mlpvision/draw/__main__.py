"""Pictures of what a model sees and does, as PNG: python -m mlpvision.draw WHAT --output=FILE ...

receptive_field --weights=RUN | --config=configs/s2mlp_wide.py   of trained weights, or untrained, per shift set
shifts [--directions=four] PICTURE                                what S²-MLP's shift does to each channel group
features --weights=RUN PICTURE                                    the feature maps by stage
saliency --weights=RUN PICTURE                                    which pixels matter for the predicted class
confusion --weights=RUN                                           on the run's own evaluation split
published                                                         the papers' accuracies against size and FLOPs
architecture mixer | s2mlp | asmlp                                a network, its block, and how it mixes places

The last two draw the documentation's figures, and need the repository.
"""

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="receptive_field: an untrained model.")
_WEIGHTS = flags.DEFINE_string("weights", None, "A workdir, WORKDIR/checkpoints/STEP, a weight file or its name.")
_DIRECTIONS = flags.DEFINE_string("directions", "four", "shifts: a name of mlpvision.models.shift.DIRECTIONS.")
_OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.")


def main(argv: list[str]) -> None:
  """Draws what is named."""
  if len(argv) < 2 or argv[1] not in _KINDS:
    raise app.UsageError(f"name one picture: {', '.join(_KINDS)}")
  kind, pictures = argv[1], argv[2:]
  if len(pictures) != (kind in ("shifts", "features", "saliency", "architecture")):
    what = "family" if kind == "architecture" else "picture"
    raise app.UsageError(f"{kind} takes {'one' if not pictures or kind == 'architecture' else 'no'} {what}")
  from mlpvision.reporting.curves import to_png

  figure = _KINDS[kind](*pictures)
  try:
    with open(_OUTPUT.value, "wb") as file:
      file.write(to_png(figure))
  except OSError as error:
    raise UserError(f"cannot write {_OUTPUT.value}: {error}") from error
  print(_OUTPUT.value)


def _trained():
  if not _WEIGHTS.value:
    raise app.UsageError("--weights=RUN")
  from mlpvision import trained

  return trained.load(_WEIGHTS.value)


def _receptive_field():
  import jax

  from mlpvision import tasks
  from mlpvision.draw import figures, maps
  from mlpvision.models import shift

  if _WEIGHTS.value:
    trained = _trained()
    noise = jax.random.normal(jax.random.key(0), (8, *[trained.preprocessing.image_size] * 2, 3))
    return figures.receptive_fields({_WEIGHTS.value: maps.receptive_field(*trained, noise)})
  config = commands.read_config(_CONFIG)
  if config is None:
    raise app.UsageError("receptive_field: --weights=RUN or --config=FILE")
  with config.unlocked():
    config.model.dtype = "float32"
  model = tasks.make_model(config, 10)
  sets = {config.model.name: model}
  if hasattr(model, "directions"):
    sets = {name: model.clone(directions=name) for name in ("none", "up", "up_down", "up_right", "four", "eight")}
    sets = {
      name: m for name, m in sets.items() if config.model.get("hidden_dim", 768) % len(shift.DIRECTIONS[name]) == 0
    }
  elif hasattr(model, "shift_size"):
    sets = {f"shift size {size}": model.clone(shift_size=size) for size in (1, 3, 5, 7)}
  images = jax.random.normal(jax.random.key(0), (2, *[config.data.image_size] * 2, 3))
  params = jax.jit(model.init)(jax.random.key(1), images)["params"]  # the same for every set
  return figures.receptive_fields({name: maps.receptive_field(m, params, images) for name, m in sets.items()})


def _shifts(path):
  import numpy as np

  from mlpvision.data import crops, transforms
  from mlpvision.draw import figures

  image = transforms.open_image(path)
  small = crops.center_crop(image, 14, crop_ratio=1.0, interpolation="bicubic")
  return figures.shifts(np.asarray(small, np.float32) / 255, _DIRECTIONS.value)


def _features(path):
  from mlpvision.draw import figures, maps

  trained = _trained()
  colours = maps.feature_colours(*trained, trained.preprocess(path))
  return figures.features(_shown(trained, path), colours, trained.model.feature_strides)


def _saliency(path):
  from mlpvision.draw import figures, maps

  trained = _trained()
  ((best,),) = trained.predict(path, top=1)
  heat = maps.saliency(*trained, trained.preprocess(path), trained.class_names.index(best.name))
  title = f"{best.words or best.name}, {best.probability:.0%}"
  return figures.saliency(_shown(trained, path), heat, title)


def _confusion():
  from mlpvision.data import datasets
  from mlpvision.draw import figures
  from mlpvision.evaluate import confusion

  trained = _trained()
  if trained.step is None:
    raise UserError(f"{_WEIGHTS.value} is not a run, and names no dataset")
  data = trained.config.data
  split = datasets.open_split(data.name, data.eval_split, data.data_dir)
  counts = confusion.count(trained, split)
  right = counts.trace() / counts.sum()
  return figures.confusion(counts, trained.class_names, f"{split.name}: top-1 {right:.2%} of {counts.sum():,} images")


def _published():
  page = commands.of_repository("docs.tools.models_page", "published")
  return page.draw(page.count())


def _architecture(family):
  architecture = commands.of_repository("docs.tools.architecture", "architecture")
  if family not in architecture.FAMILIES:
    raise UserError(f"architecture {family}: one of {', '.join(architecture.FAMILIES)}")
  return architecture.draw(family)


def _shown(trained, path):
  """The picture as the model sees it, float [H, W, 3] in [0, 1]."""
  import numpy as np

  view = trained.preprocessing
  return np.clip(trained.preprocess(path) * np.asarray(view.std) + np.asarray(view.mean), 0, 1)


_KINDS = {
  "receptive_field": _receptive_field,
  "shifts": _shifts,
  "features": _features,
  "saliency": _saliency,
  "confusion": _confusion,
  "published": _published,
  "architecture": _architecture,
}


if __name__ == "__main__":
  flags.mark_flag_as_required("output")
  commands.run(main)
