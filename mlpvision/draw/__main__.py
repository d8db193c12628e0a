"""Draws what a model sees and does, as PNG or SVG: python -m mlpvision.draw WHAT --output=FILE ...

receptive_field --weights=RUN | --config=configs/s2mlp_wide.py   of trained weights, or untrained for each shift set
shifts [--directions=four] PICTURE                                S²-MLP's shift of each channel group
features --weights=RUN PICTURE                                    the feature maps of each stage
saliency --weights=RUN PICTURE                                    the pixels that matter for the predicted class
confusion --weights=RUN                                           on the run's own evaluation split
ap --weights=RUN [--csv=FILE]                                     each class's AP there, of a detector; also as text
published                                                         the papers' accuracies by size and FLOPs
architecture mixer | s2mlp | asmlp                                a network, its block, and its token mixing

`published` and `architecture` draw figures of the documentation and work only in the repository. Of a segmenter,
`features` of its backbone and `confusion` of its pixels are drawn; of a detector, `features` of its backbone.
"""

from absl import app, flags
from ml_collections import config_flags

from mlpvision import commands
from mlpvision.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="receptive_field: an untrained model.")
_WEIGHTS = commands.define_path("weights", None, "A workdir, WORKDIR/checkpoints/STEP, a weight file or its name.")
_PREPROCESSING = flags.DEFINE_string("preprocessing", None, commands.PREPROCESSING)
_DIRECTIONS = flags.DEFINE_string("directions", "four", "shifts: a name in mlpvision.models.shift.DIRECTIONS.")
_CSV = commands.define_path("csv", None, "ap: also write the AP of each class as CSV.")
_OUTPUT = commands.define_path("output", None, "The file to write: .svg is an SVG, everything else a PNG.")


def main(argv: list[str]) -> None:
  """Draws one picture."""
  if len(argv) < 2 or argv[1] not in _KINDS:
    raise app.UsageError(f"name one picture: {', '.join(_KINDS)}")
  kind, arguments = argv[1], argv[2:]
  draw, noun = _KINDS[kind]
  if len(arguments) != bool(noun):
    raise app.UsageError(f"{kind} takes {f'one {noun}' if noun else 'no further arguments'}")
  from mlpvision.reporting.curves import to_png, to_svg

  figure = draw(*arguments)
  encode = to_svg if _OUTPUT.value.endswith(".svg") else to_png
  try:
    with open(_OUTPUT.value, "wb") as file:
      file.write(encode(figure))
  except OSError as error:
    raise UserError(f"cannot write {_OUTPUT.value}: {error}") from error
  print(_OUTPUT.value)


def _trained():
  if not _WEIGHTS.value:
    raise app.UsageError("--weights is missing")
  from mlpvision import trained

  return trained.load(_WEIGHTS.value, preprocessing=_PREPROCESSING.value)


def _classifier(kind):
  """The weights, of a classifier. Raises UserError for others."""
  from mlpvision import tasks

  trained = _trained()
  if trained.task is not tasks.classification:
    others = "features or confusion" if trained.task is tasks.segmentation else "features"
    raise UserError(f"{kind} is drawn of a classifier, and {_WEIGHTS.value} is {trained.task.NOUN}: use {others}")
  return trained


def _receptive_field():
  from mlpvision.draw import figures, maps

  if _WEIGHTS.value:
    trained = _classifier("receptive_field")
    size = trained.preprocessing.image_size
    return figures.receptive_fields({_WEIGHTS.value: maps.receptive_field(*trained, maps.noise(8, size))})
  config = commands.read_config(_CONFIG)
  if config is None:
    raise app.UsageError("receptive_field needs --weights=RUN or --config=FILE")
  from mlpvision import tasks

  with config.unlocked():
    config.model.dtype = "float32"
  if tasks.of(config) is not tasks.classification:
    raise UserError(f"receptive_field is drawn of a classifier, and --config is for {tasks.of(config).NOUN}")
  model = tasks.make_model(config, 10)
  return figures.receptive_fields(maps.receptive_fields(config.model.name, model, config.data.image_size))


def _shifts(path):
  import numpy as np

  from mlpvision.data import crops, transforms
  from mlpvision.draw import figures

  small = crops.center_crop(transforms.open_image(path), 14, crop_ratio=1.0, interpolation="bicubic")
  return figures.shifts(np.asarray(small, np.float32) / 255, _DIRECTIONS.value)


def _features(path):
  from mlpvision.draw import figures, maps

  trained = _trained()
  image = trained.preprocess(path)
  model, params = trained
  if hasattr(model, "backbone"):
    model, params = model.backbone, params["backbone"]
    if not model.any_size:
      raise UserError(
        f"features of {_WEIGHTS.value}: its backbone works at one image size, so it sees no whole picture"
      )
  return figures.features(_shown(trained, image), maps.feature_colors(model, params, image), model.feature_strides)


def _saliency(path):
  from mlpvision.draw import figures, maps

  trained = _classifier("saliency")
  image = trained.preprocess(path)
  ((best,),) = trained.predict(path, top=1)
  heat = maps.saliency(*trained, image, trained.class_names.index(best.name))
  return figures.saliency(_shown(trained, image), heat, f"{best.words or best.name}, {best.probability:.0%}")


def _shown(trained, image):
  """An image as the model sees it, without the normalization: float [H, W, 3] in [0, 1]."""
  import numpy as np

  view = trained.preprocessing
  return np.clip(image * np.asarray(view.std) + np.asarray(view.mean), 0, 1)


def _confusion():
  from mlpvision.data import datasets
  from mlpvision.evaluate import confusion

  trained = _trained()
  if trained.step is None:
    raise UserError(f"{_WEIGHTS.value} is a weight file, which has no evaluation split; confusion needs a run")
  split = datasets.of(trained.config, trained.config.data.eval_split)
  counts = confusion.count(trained, split)
  return confusion.draw(counts, datasets.with_classes(split, trained.class_names, "the run")[0])


def _ap():
  """COCO's AP of each class; the text is printed."""
  import jax

  from mlpvision import sharding, tasks
  from mlpvision.evaluate import evaluators
  from mlpvision.reporting import per_class, tables

  trained = _trained()
  if trained.task is not tasks.TASKS.get("detection"):
    raise UserError(f"ap is drawn of a detector, and {_WEIGHTS.value} is none: use confusion")
  if trained.step is None:
    raise UserError(f"{_WEIGHTS.value} is a weight file, which has no evaluation split; ap needs a run")
  mesh, config = sharding.make_mesh(devices=jax.devices()[:1]), trained.config
  evaluator, split, _ = evaluators.make(
    {"type": "accuracy"}, trained.model, trained.class_names, config, mesh, trained_on=config.data.name
  )
  found = evaluator.scores(trained.variables).by_class
  scores = dict(zip(split.class_names, zip(*found.values(), strict=True), strict=True))
  print(per_class.text(scores))
  if _CSV.value:
    columns, *rows = per_class.table(scores)
    with tables.Table(_CSV.value, columns) as table:
      table.add(rows)
  return per_class.picture(scores, f"{split.name}: AP of each class on {len(split):,} images")


def _published():
  page = commands.of_repository("docs.tools.models_page", "published")
  return page.draw(page.count())


def _architecture(family):
  architecture = commands.of_repository("docs.tools.architecture", "architecture")
  if family not in architecture.FAMILIES:
    raise UserError(f"architecture {family}: choose one of {', '.join(architecture.FAMILIES)}")
  return architecture.draw(family)


# {name: (function that makes the figure, its argument)}
_KINDS = {
  "receptive_field": (_receptive_field, ""),
  "shifts": (_shifts, "picture"),
  "features": (_features, "picture"),
  "saliency": (_saliency, "picture"),
  "confusion": (_confusion, ""),
  "ap": (_ap, ""),
  "published": (_published, ""),
  "architecture": (_architecture, "family"),
}


if __name__ == "__main__":
  flags.mark_flag_as_required("output")
  commands.run(main)
