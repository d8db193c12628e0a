"""A trained model, from a run or a weight file, with its preprocessing and class names."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any, Self

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
import ml_collections
import numpy as np

from mlpvision import augment, checkpoints, models, preprocessing as preprocessing_lib, tasks, weights
from mlpvision.data import imagenet
from mlpvision.errors import UserError
from mlpvision.models import layers
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import names as names_lib, noted, preprocessings, shapes, showing, sources
from mlpvision.weights.errors import shortened


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Trained(tuple[nn.Module, Mapping[str, Any]]):
  """A model with its parameters and preprocessing. `model, params = trained` unpacks it, with these types.

  Attributes:
    model: a linen module: model.apply(variables, images) maps normalized images to outputs; for a classifier, logits
      [B, K].
    variables: {"params": nested dict of float32 arrays}, and "batch_stats" of a model with batch normalization.
    preprocessing: None if a weight file does not specify it.
    class_names: of the K classes: ImageNet's WordNet ids for published weights, numbers for files without names.
    model_name: a key of `models.MODELS` or `models.HEADS`.
    config, step: of a run's checkpoint; None for a weight file.
    info: `weights.Info` of a weight file; None for a run.
    source: where it was loaded from, as text.
  """

  model: nn.Module
  variables: Mapping[str, Any]
  preprocessing: Preprocessing | None
  class_names: tuple[str, ...]
  model_name: str
  config: ml_collections.ConfigDict | None = None
  step: int | None = None
  info: weights.Info | None = None
  source: str = ""

  def __new__(cls, model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Self:
    del args, kwargs
    return super().__new__(cls, (model, variables["params"]))

  def __getnewargs__(self) -> tuple[Any, ...]:
    return self.model, self.variables

  def __repr__(self) -> str:
    return showing.line("Trained", self.model_name, self.model, self.params, self._origin)

  def _repr_html_(self) -> str:
    about = (self._origin, self.preprocessing, self.class_names)
    return showing.table(self.model_name, self.model, self.params, *about)

  @property
  def _origin(self):
    return self.source if self.step is None else f"{self.source}, step {self.step:,}"

  @property
  def params(self) -> Mapping[str, Any]:
    """The parameters."""
    return self.variables["params"]

  @property
  def task(self) -> Any:
    """The module in `tasks`; for a weight file, of its model."""
    return tasks.of(self.config or {"task": tasks.name_of(self.model)})

  @property
  def loss(self) -> str:
    """The loss that the parameters were trained with; for a weight file, "softmax"."""
    return self.config.loss if self.config else "softmax"

  def preprocess(self, picture: Any) -> np.ndarray:
    """Resizes, crops and normalizes an image as in evaluation: float32 [image_size, image_size, 3].

    Of a segmenter or a detector: the whole image, resized to fit `preprocessing.scale`, float32 [h, w, 3].

    picture: a path, encoded bytes, a PIL image or an array [H, W] or [H, W, 3], of uint8 or of another range that
      `data.pixels` knows. UserError if it cannot be read.
    """
    view, row = self.preprocessing, self.task.row(picture, self.config_of_task)
    image, size = (row["images"][0], row["sizes"][0]) if "images" in row else (row["image"], row.get("size"))
    if size is not None:  # the rest is canvas
      image = image[: size[0], : size[1]]
    return np.asarray(augment.normalize(image, view.mean, view.std))

  def predict(self, pictures: Any, top: int = 5) -> list[Any]:
    """The task's prediction for each image.

    For a classifier, this is a list of up to `top` `tasks.classification.Prediction`s, most probable first.
    Probabilities are from the softmax, or from the sigmoid if the model was trained with that loss. For a segmenter, it
    is a `tasks.segmentation.Prediction`, with a map of the image's own size; for a detector, a
    `tasks.detection.Prediction`, with boxes and masks in the image's own pixels.

    pictures: an image, as `preprocess` takes it, or a sequence of them. UserError lists all that cannot be read.
    """
    several = isinstance(pictures, Sequence) and not isinstance(pictures, str | bytes)
    found, problems = [], []
    for picture in pictures if several else [pictures]:  # one is in memory at a time
      try:
        row = self.task.row(picture, self.config_of_task)
      except UserError as error:
        problems.append(str(error))
        continue
      if not problems:
        found += self.of_rows([row], top)
    if problems:
      raise UserError("\n".join(problems))
    return found

  def of_rows(self, rows: Sequence[Any], top: int = 5) -> list[Any]:
    """The predictions of several images at once, as `predict` returns them.

    rows: the images as the task's `row` makes them, of equal shapes; a program is compiled for each number of them.
    """
    values = jax.device_get(self._probabilities(self.variables, jax.tree.map(lambda *x: np.stack(x), *rows)))
    each = (jax.tree.map(lambda x, i=i: x[i], values) for i in range(len(rows)))
    return [self.task.predictions(x, self.class_names, top, row) for x, row in zip(each, rows, strict=True)]

  @functools.cached_property
  def config_of_task(self) -> ml_collections.ConfigDict:
    """The config of a run; for a weight file, the fields that evaluation reads, with the file's preprocessing."""
    if self.config is not None:
      return self.config
    config = ml_collections.ConfigDict({"data": {}, "eval": {}})
    preprocessing_lib.write_to(config, self.preprocessing)
    if self.task is tasks.segmentation and not self.model.backbone.any_size:
      config.eval.update(mode="slide", stride=(2 * self.preprocessing.image_size // 3,) * 2)
    if self.task is tasks.detection:
      config.data.canvas = preprocessing_lib.canvas(self.preprocessing.scale)
      config.model = {"masks": self.model.masks}
    return config

  @functools.cached_property
  def _probabilities(self):
    def probabilities(variables, batch):
      apply = functools.partial(self.model.apply, variables)
      return self.task.probabilities(self.task.outputs(apply, batch, self.config_of_task), self.loss)

    return jax.jit(probabilities)


def load(
  source: str | os.PathLike,
  *,
  sharding: Any = None,
  ema: bool | None = None,
  preprocessing: Preprocessing | str | None = None,
) -> Trained:
  """Like `open_source`; also raises UserError if the preprocessing is unknown, or the model rejects its image size."""
  trained = open_source(source, sharding=sharding, ema=ema, preprocessing=preprocessing)
  if trained.preprocessing is None:
    advice = preprocessings.advice(trained.model_name, trained.model, trained.params)
    raise UserError(f"{source} does not specify its preprocessing. {advice}")
  try:
    _check_view(trained)
  except ValueError as error:
    raise UserError(f"{source}: its preprocessing does not fit its parameters: {error}") from error
  return trained


def _check_view(trained):
  """Raises ValueError if a model cannot take the images that its preprocessing makes."""
  model, view = trained.model, trained.preprocessing
  is_dense = hasattr(model, "backbone")
  module, params = (model.backbone, trained.params["backbone"]) if is_dense else (model, trained.params)
  if type(module) in (family.module for family in models.FAMILIES) and not (is_dense and module.any_size):
    shapes.check_image_size(module, _shapes(params), view.image_size)
  if trained.task is tasks.detection:
    preprocessing_lib.check_canvas(trained.config_of_task.data.canvas, view.scale)


def open_source(
  source: str | os.PathLike,
  *,
  sharding: Any = None,
  ema: bool | None = None,
  preprocessing: Preprocessing | str | None = None,
  **overrides: Any,
) -> Trained:
  """Loads a trained model from a run or weights; UserError if there is none.

  source: a run's workdir or one of its checkpoints; a weight file, or a folder with one; a name in `weights.KNOWN`,
    downloaded once; or hf://OWNER/NAME on the Hugging Face Hub.
  sharding: of every array; default: this process's first device.
  ema: True loads the average of the parameters (EMA), False the parameters. None loads the parameters of a run and, of
    a PyTorch checkpoint that has both, the average.
  preprocessing: of weights, instead of what they say, see `weights.load`. A run has its own.
  **overrides: for weights, num_classes and attributes of the module, see `weights.load`.
  """
  source = os.path.expanduser(source)
  if sources.names_weights(source):
    loaded = weights.load(source, ema=ema, preprocessing=preprocessing, **overrides)
    model, _, info = loaded
    count = model.num_classes or 0
    names = imagenet.head_classes(count) if info.on_imagenet else None
    names = names or info.class_names or tuple(str(i) for i in range(count))
    variables = jax.device_put(loaded.variables, sharding)
    return Trained(model, variables, info.preprocessing, names, info.model_name, info=info, source=source)
  if "://" not in source and not os.path.isdir(source):
    hint = f"{source} is not a run, a weight file, or a name of published weights. {names_lib.hint(source)}"
    raise UserError(hint.rstrip(". "))
  if preprocessing is not None:
    raise UserError(f"{source} is a run, which has its own preprocessing: omit preprocessing={preprocessing}")
  variables, meta, step = checkpoints.load_variables(source, sharding, bool(ema))
  try:
    return _of_run(variables, meta, step, source)
  except Exception as error:  # a run of somebody else, whose meta can be anything
    raise UserError(f"{source}: the checkpoint of step {step} is not usable: {shortened(error, 1000)}") from error


def _of_run(variables, meta, step, source):
  """A `Trained` from what a checkpoint contains. Raises an exception if it is not that of a run."""
  config, names = ml_collections.ConfigDict(meta["config"]), noted.class_names(meta["class_names"])
  tasks.of(config).check(config)
  options = {name: value for name, value in config.model.items() if name not in (*noted.RUN_OPTIONS, "name")}
  backbone = options.pop("backbone", config.model.name)
  known = [family for family in models.FAMILIES if backbone in family.variants]
  if head := models.HEADS.get(config.model.name):
    own = {name: options.pop(name) for name in layers.attributes(head) if name in options}
    noted.options_of_head(head, own)
  if known:
    options = noted.options(known[0].module, options)
  for name in ("drop_path", "dropout"):
    if not 0 <= config.model.get(name, 0) < 1:
      raise UserError(f"model.{name}={config.model[name]}: must be in [0, 1)")
  view = preprocessing_lib.of_config(config)
  model = tasks.make_model(config, len(names))
  found, expected = _shapes(variables), _expected(model, variables, view)
  if known:
    params = variables["params"]
    of_backbone = params["backbone"] if head else params
    if wrong := noted.disagreement(options, known[0].arguments(_shapes(of_backbone))):
      raise UserError(f"its config.model says {wrong}")
  wrong = [path for path in {**expected, **found} if expected.get(path) != found.get(path)]
  if wrong:
    raise UserError(
      f"{len(wrong)} of its parameters do not fit {config.model.name}, as {wrong[0].removeprefix('params/')}"
    )
  return Trained(model, variables, view, names, config.model.name, config=config, step=step, source=source)


def _expected(model, variables, view):
  """{path: shape} of a model's variables."""
  if hasattr(model, "backbone"):
    found = shapes.expected_dense(model, _shapes(variables["params"]))
    in_stats = [path for path in found if path.startswith("batch_stats/")]
    return {path if path in in_stats else f"params/{path}": shape for path, shape in found.items()}
  if any(isinstance(model, family.module) for family in models.FAMILIES):
    found = shapes.expected(model, _shapes(variables["params"]))
    return {f"params/{path}": shape for path, shape in found.items()}
  images = jax.ShapeDtypeStruct((1, view.image_size, view.image_size, 3), "float32")
  return _shapes(jax.eval_shape(model.init, jax.random.key(0), images))


def _shapes(params):
  return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
