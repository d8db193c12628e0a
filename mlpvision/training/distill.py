"""Knowledge distillation: a trained classifier teaches another one, in the same step.

The teacher sees the same augmented images as the student ("consistent teaching"), which together with long schedules
makes the patient teacher of arXiv 2106.05237.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import ml_collections
import optax

from mlpvision import tasks, trained as trained_lib
from mlpvision.errors import UserError
from mlpvision.preprocessing import Preprocessing
from mlpvision.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Teacher:
  """model: in the student's dtype; variables: in host memory; abstract: their shapes and shardings in a step."""

  model: nn.Module
  variables: Any
  abstract: Any
  view: Preprocessing

  def placed(self) -> Any:
    """The variables in their shardings, on all processes."""
    return jax.tree.map(
      lambda x, like: jax.make_array_from_callback(x.shape, like.sharding, x.__getitem__),
      self.variables,
      self.abstract,
    )

  def of_step(self, config: ml_collections.ConfigDict) -> step_lib.Distillation:
    """For `step.make_train_step`."""
    return step_lib.Distillation(functools.partial(self.logits, config), functools.partial(loss, config))

  def logits(self, config: ml_collections.ConfigDict, variables: Any, images: jax.Array) -> jax.Array:
    """The teacher's opinion on a batch, float32 [B, K], without a gradient.

    images: float32 [B, H, W, 3], augmented, in the normalization of config.data.
    """
    mean, std = (jnp.asarray(values) for values in (config.data.mean, config.data.std))
    images = (images * std + mean - jnp.asarray(self.view.mean)) / jnp.asarray(self.view.std)
    return jax.lax.stop_gradient(self.model.apply(variables, images).astype(jnp.float32))


def open_teacher(
  config: ml_collections.ConfigDict, mesh: Mesh, num_classes: int, class_names: Sequence[str] = ()
) -> Teacher | None:
  """The `Teacher` in config.distill.teacher, None if that is "".

  class_names: of the run, () if they are not known; a teacher with other names must not teach.

  Raises UserError: nothing can be loaded, or the teacher has other classes, another task or image size.
  """
  source = config.distill.teacher
  if not source:
    return None
  if config.get("task", "classification") != "classification" or config.loss != "softmax":
    raise UserError("distill.teacher is for task='classification' with loss='softmax'")
  here = mesh.devices.flat[0] in jax.devices()  # and not a description of a device that is planned for
  try:
    found = trained_lib.open_source(source, sharding=NamedSharding(mesh, PartitionSpec()) if here else None)
  except UserError as error:
    raise UserError(f"distill.teacher: {error}") from error
  _check(found, config, num_classes, class_names)
  variables = jax.device_get(dict(found.variables))
  model = found.model.clone(dtype=jnp.dtype(config.model.dtype), remat="none")
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
  abstract = step_lib.placed(shapes, mesh, config.mesh.rules)
  return Teacher(model, variables, abstract, found.preprocessing)


def _check(found, config, num_classes, class_names):
  source, size = config.distill.teacher, config.data.image_size
  if found.task is not tasks.classification:
    raise UserError(f"distill.teacher={source} is no classifier")
  if found.preprocessing is None:
    raise UserError(f"distill.teacher={source} does not say how its images are normalized")
  if found.model.num_classes != num_classes:
    raise UserError(f"distill.teacher={source} has {found.model.num_classes} classes, but this run has {num_classes}")
  numbers = tuple(str(i) for i in range(num_classes))
  if class_names and found.class_names not in (numbers, tuple(class_names)):
    pairs = zip(found.class_names, class_names, strict=True)
    theirs, own = next((a, b) for a, b in pairs if a != b)
    raise UserError(f"distill.teacher={source} has other classes: {theirs!r} in the place of {own!r}")
  if found.preprocessing.image_size != size:
    raise UserError(
      f"distill.teacher={source} is for images of {found.preprocessing.image_size}, but data.image_size is {size}"
    )


def loss(
  config: ml_collections.ConfigDict, logits: jax.Array, of_teacher: jax.Array, targets: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(mean loss, {"top1": as in classification, "agreement": share of images in which teacher and student agree}).

  config.distill.loss "soft": the Kullback-Leibler divergence of the student from the teacher, both at
  config.distill.temperature, times its square (arXiv 1503.02531, Sec. 2); labels are not used. "hard": the mean of the
  cross-entropies with the targets and with the teacher's best class (DeiT, arXiv 2012.12877, Eq. 3), here on one head.

  Args:
    config: the whole config.
    logits, of_teacher: float32 [B, K].
    targets: float32 [B, K], rows sum to 1.
  """
  best = of_teacher.argmax(-1)
  if config.distill.loss == "soft":
    temperature = config.distill.temperature
    theirs, own = (jax.nn.log_softmax(values / temperature) for values in (of_teacher, logits))
    value = temperature**2 * optax.losses.kl_divergence_with_log_targets(own, theirs).mean()
  else:
    to_labels = optax.softmax_cross_entropy(logits, targets).mean()
    value = (to_labels + optax.softmax_cross_entropy_with_integer_labels(logits, best).mean()) / 2
  hits = {"top1": logits.argmax(-1) == targets.argmax(-1), "agreement": logits.argmax(-1) == best}
  return value, {name: values.mean(dtype=jnp.float32) for name, values in hits.items()}
