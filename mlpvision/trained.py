"""A trained model, from a run or from published weights, with all that its images and its answers need."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import ml_collections
import numpy as np

from mlpvision import augment, checkpoints, weights
from mlpvision.data import imagenet, loader, transforms
from mlpvision.errors import UserError
from mlpvision.training.setup import make_model


class Prediction(NamedTuple):
  """A class, as the dataset names it, how probable it is, and WordNet's words where the name is one of its ids."""

  name: str
  probability: float
  words: str | None


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its parameters and what they expect of an image. `model, params = trained` works too.

  Attributes:
    model: a linen module: model.apply({"params": params}, images) gives logits [B, K] of normalised images.
    params: nested dict of float32 arrays.
    config: a run's whole config; published weights have a part of one: data, eval and loss, without a dataset.
    class_names: of the K classes. Published weights have ImageNet's WordNet ids; files without names, numbers.
    step: of the checkpoint; None for weights that are not a run's.
  """

  model: nn.Module
  params: Mapping[str, Any]
  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  step: int | None

  def __iter__(self) -> Iterator[Any]:
    return iter((self.model, self.params))

  def preprocess(self, picture: Any) -> np.ndarray:
    """What the model takes of a picture: resized, cropped and normalised as the weights were evaluated.

    Args:
      picture: a path, encoded bytes, a PIL image or a uint8 array [H, W] or [H, W, 3].

    Returns:
      float32 [image_size, image_size, 3].

    Raises:
      UserError: no such file, or not a picture.
    """
    data = self.config.data
    pixels = loader.preprocess(transforms.open_image(picture), self.config)
    return np.asarray(augment.normalize(pixels, data.mean, data.std))

  def predict(self, pictures: Any, top: int = 5) -> list[list[Prediction]]:
    """The most probable classes of each picture.

    Args:
      pictures: one of what `preprocess` takes, or a sequence of them.
      top: how many classes, at most.

    Returns:
      For each picture its classes, most probable first. Probabilities are the softmax's, or for a model trained with
      the sigmoid loss the sigmoid's.

    Raises:
      UserError: pictures that cannot be read: all of them are listed.
    """
    several = isinstance(pictures, Sequence) and not isinstance(pictures, str | bytes)
    opened = transforms.open_all(pictures if several else [pictures])
    rankings = []
    for picture in opened:
      probabilities = np.asarray(self._probabilities(self.params, self.preprocess(picture)[None])[0])
      best = np.argsort(-probabilities, kind="stable")[:top]
      names = [self.class_names[i] for i in best]
      rankings.append(
        [Prediction(name, float(probabilities[i]), imagenet.words(name)) for i, name in zip(best, names, strict=True)]
      )
    return rankings

  @functools.cached_property
  def _probabilities(self):
    activation = jax.nn.sigmoid if self.config.loss == "sigmoid" else jax.nn.softmax
    return jax.jit(lambda params, images: activation(self.model.apply({"params": params}, images)))


def load(source: str | os.PathLike, *, sharding: Any = None, ema: bool = False) -> Trained:
  """Reads a trained model.

  Args:
    source: a run's workdir or one of its checkpoints; or weights: a file, or a name in `weights.KNOWN`, which is
      downloaded once.
    sharding: where each array goes; default: this process's first device.
    ema: the moving average instead of the parameters; runs only.

  Raises:
    UserError: nothing usable there, or a file of weights that does not say what images it expects.
  """
  source = os.fspath(source)
  if os.path.isfile(source) or source in weights.KNOWN:
    return _from_weights(source, sharding)
  params, meta, step = checkpoints.load_weights(source, sharding, ema)
  config = ml_collections.ConfigDict(meta["config"])
  model = make_model(config.model, len(meta["class_names"]))
  return Trained(model, params, config, tuple(meta["class_names"]), step)


def _from_weights(source, sharding):
  model, params, info = weights.load(source)
  if info.preprocessing is None:
    raise UserError(
      f"{source} does not say what images it expects; load it by mlpvision.weights.load, and give weights.save a"
      " Preprocessing"
    )
  view = dataclasses.asdict(info.preprocessing)
  data = {key: view.pop(key) for key in ("mean", "std", "image_size")}
  config = ml_collections.ConfigDict({"data": data, "eval": view, "loss": "softmax"})
  names = imagenet.head_classes(model.num_classes) if info.entry else None
  names = names or info.class_names or tuple(str(i) for i in range(model.num_classes))
  return Trained(model, jax.device_put(params, sharding), config, names, None)
