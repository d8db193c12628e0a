"""Predictions for single pictures, with the preprocessing that the weights were trained for."""

import jax
import numpy as np

from mlpvision import augment
from mlpvision.data import loader, transforms
from mlpvision.errors import UserError
from mlpvision.evaluation import run


def predict_files(weights, paths, top=5):
  """The most probable classes of each picture.

  Args:
    weights: what `run.load` takes.
    paths: image files in any format and mode that Pillow reads.
    top: how many classes, at most.

  Returns:
    For each path [(class name, probability), ...], most probable first. Probabilities are the softmax's, or for a
    model trained with the sigmoid loss the sigmoid's.

  Raises:
    UserError: no checkpoint, or pictures that cannot be read: all of them are listed.
  """
  images, problems = [], []
  for path in paths:
    try:
      images.append(transforms.open_image(path))
    except UserError as error:
      problems.append(str(error))
  if problems:
    raise UserError("\n".join(problems))

  trained = run.load(weights)
  to_probabilities = jax.nn.sigmoid if trained.config.loss == "sigmoid" else jax.nn.softmax

  @jax.jit
  def probabilities(params, image):
    data = trained.config.data
    return to_probabilities(trained.model.apply({"params": params}, augment.normalize(image, data.mean, data.std)))[0]

  rankings = []
  for image in images:
    p = np.asarray(probabilities(trained.params, loader.preprocess(image, trained.config)[None]))
    best = np.argsort(-p, kind="stable")[:top]
    rankings.append([(trained.class_names[i], float(p[i])) for i in best])
  return rankings
