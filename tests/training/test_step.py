"""The training step on meshes of virtual devices: one mathematics, however it is split."""

import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import prepare, run

from mlpvision import models, tasks
from mlpvision.errors import UserError
from mlpvision.tasks import classification
from mlpvision.training import setup as setup_lib, step as step_lib
from mlpvision.training.step import accumulate, make_train_step


@pytest.fixture
def config(small_config):
  small_config.model.drop_path = 0.2
  small_config.augment.flip = 0.5
  small_config.optim.schedule.warmup = "0 steps"
  small_config.ema_decay = 0.9
  return small_config


@pytest.mark.parametrize("parts", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_only_the_gradients_travel(config, parts):
  """On a data mesh nothing but reductions: no image or activation moves between devices, with accumulation neither."""
  config.data.batch_size, config.accumulation_steps = 80, parts
  config.augment.update(mixup=0.8, cutmix=1.0, random_erasing=0.25)
  text = prepare(config)[1].as_text()
  assert "all-reduce" in text
  for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
    assert f"{collective}(" not in text
    assert f"{collective}-start(" not in text


def test_accumulation_saves_memory_and_remat_computes_again(config):
  """What remat saves shows on accelerators: XLA's schedule for CPUs computes the blocks again, but early."""
  config.data.batch_size, config.model.num_blocks, config.model.hidden_dim = 160, 2, 64

  def cost(parts, remat):
    config.accumulation_steps, config.model.remat = parts, remat
    _, compiled = prepare(config)
    return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()["flops"]

  memory, flops = cost(1, "none")
  assert cost(4, "none")[0] < 0.5 * memory
  assert 1.2 < cost(1, "block")[1] / flops < 1.4


def test_parameters_of_one_shape_share_a_compiled_program(caplog):
  """Otherwise, a deep model would compile a program for each of its blocks before it starts."""

  def programs(num_blocks):
    model = models.create("s2mlp_wide", num_classes=10, patch_size=4, hidden_dim=20, num_blocks=num_blocks)
    caplog.clear()
    with jax.log_compiles():
      variables = step_lib.Init(model, optax.sgd(0.1), 28, False).variables(jax.random.key(7))
    return variables["params"], sum("Finished XLA compilation" in record.message for record in caplog.records)

  params, first = programs(2)
  assert first > 0
  deeper, more = programs(5)
  assert more == 0
  expected = models.create("s2mlp_wide", num_classes=10, patch_size=4, hidden_dim=20, num_blocks=2)
  expected = jax.jit(expected.init)(jax.random.key(7), jnp.zeros((1, 28, 28, 3)))["params"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), params, expected)
  kernels = [deeper[f"block_{i}"]["spatial_fc1"]["kernel"] for i in range(5)]
  assert len({kernel.tobytes() for kernel in map(np.asarray, kernels)}) == 5


class _Toy(nn.Module):
  """The mean colour, dropout and a linear layer: compiles at once."""

  num_classes: int

  @nn.compact
  def __call__(self, images, *, train=False):
    return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=not train)(images.mean((1, 2))))


def test_what_a_step_changes_and_reports(config):
  config.augment.flip = 0.0
  model, optimizer = _Toy(10), optax.sgd(0.5)
  step = jax.jit(make_train_step(model, optimizer, config))
  state = step_lib.Init(model, optimizer, 28, True)(jax.random.key(0))
  batch = tasks.random_batch(config, 10)
  batch["replaced"][:3] = True
  new, metrics = step(state, batch)
  assert (new.step, metrics["replaced"], metrics["finite"]) == (1, 3, 1)
  change = np.concatenate([x.ravel() for x in jax.tree.leaves(optax.tree.sub(new.params, state.params))])
  np.testing.assert_allclose(metrics["update_norm"], np.linalg.norm(change), rtol=1e-5)
  np.testing.assert_allclose(metrics["update_norm"], 0.5 * metrics["grad_norm"], rtol=1e-5)
  average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state.params, new.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.ema, average)
  # With the same parameters and images, what dropout leaves depends on the step.
  found = [step(state.replace(step=jnp.int32(i)), batch)[1]["loss"].item() for i in (0, 0, 1, 2)]
  assert found[0] == found[1]
  assert len(set(found)) == 3


def test_accumulation_is_the_mean_over_parts_that_take_turns():
  images, targets = jnp.arange(12.0).reshape(12, 1, 1, 1), {"double": 2 * jnp.arange(12)}

  def gradient(params, images, targets):
    return params * images.mean(), {"images": images[:4, 0, 0, 0], "double": targets["double"][:4].astype(float)}

  mean, seen = accumulate(gradient, 3, (jnp.float32(2),), images, targets)
  assert mean == 2 * 5.5
  np.testing.assert_allclose(seen["images"], [1, 4, 7, 10])  # of 0, 1, 2; of 3, 4, 5; ...
  np.testing.assert_allclose(seen["double"], [2, 8, 14, 20])


def test_blocks_share_no_work_in_the_backward_pass(config):
  """Left to itself, XLA on CPU computes the residual stream's gradient anew in every block, a longer sum each time."""
  config.model = dict(name="mixer_b16", patch_size=4, hidden_dim=16, dtype="float32")

  def operands(num_blocks):
    config.model.num_blocks = num_blocks
    _, compiled = prepare(config)
    # Arrays only: the norms of gradient and update are sums over all parameters.
    kernels = re.findall(r" = \w+\[\d[^ ]* fusion\((.*)\), kind", compiled.as_text())
    return max(kernel.count("%") for kernel in kernels)

  assert operands(4) <= operands(2) < 30


def test_bfloat16_keeps_parameters_and_state_in_float32(config):
  config.model.dtype = "bfloat16"
  history, state = run(config, steps=2)
  assert np.isfinite(history).all()
  assert {x.dtype.name for x in jax.tree.leaves((state.params, state.ema))} == {"float32"}


def test_ema_is_the_running_average(config):
  _, one = run(config, steps=1)
  _, two = run(config, steps=2)
  leaf = lambda tree: np.asarray(tree["head"]["kernel"])  # noqa: E731
  np.testing.assert_allclose(leaf(two.ema), 0.9 * leaf(one.ema) + 0.1 * leaf(two.params), atol=1e-6)


def test_a_step_repeats_exactly_and_depends_on_the_seed(config):
  first, a = run(config, steps=3)
  again, b = run(config, steps=3)
  np.testing.assert_array_equal(first, again)
  jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
  config.seed = 1
  assert not np.array_equal(run(config, steps=3)[0], first)


def test_label_smoothing_and_losses():
  targets = classification.smooth_one_hot(jnp.array([2]), 4, 0.2)
  np.testing.assert_allclose(targets, [[0.05, 0.05, 0.85, 0.05]], rtol=1e-6)
  logits = jnp.array([[1.0, -2.0, 0.5, 3.0]])
  p = np.exp(logits) / np.exp(logits).sum()
  losses = {name: loss(logits, targets) for name, loss in classification.LOSSES.items()}
  np.testing.assert_allclose(losses["softmax"], -(targets * np.log(p)).sum(-1), rtol=1e-5)
  s = 1 / (1 + np.exp(-logits))
  bce = -(targets * np.log(s) + (1 - targets) * np.log(1 - s)).sum(-1)
  np.testing.assert_allclose(losses["sigmoid"], bce, rtol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.data.update(batch_size=42), "over 8 devices: .*multiple of 8"),
    (lambda c: c.augment.update(mixup=0.8), "5 images on each of 8 devices.*multiple of 16"),
    (lambda c: c.augment.update(cutmix=1.0), "mixup and cutmix need pairs"),
    (lambda c: c.update(accumulation_steps=2), "in each of 2 accumulation steps: .*multiple of 16"),
    (lambda c: c.mesh.update(data=3), "mesh data=3 x fsdp=1 x model=1 does not fit 8 devices"),
    (lambda c: c.mesh.update(fsdp=-1), "one of the three may be -1"),
    (lambda c: c.update(duration="a while"), "duration is 'a while'"),
    (lambda c: c.update(duration="0.001 epochs"), "less than one step: .* 4,000 images, .* 40"),
    (lambda c: c.update(loss="hinge"), "loss='hinge'"),
    (lambda c: c.data.update(image_size=30), "30x30 cannot be cut"),
    (lambda c: c.model.update(name="s3mlp"), "unknown model 's3mlp'"),
    (lambda c: c.model.update(dtype="int8"), "model.dtype"),
  ],
)
def test_mistakes_are_named_before_anything_runs(config, change, message):
  change(config)
  with pytest.raises(UserError, match=message):
    setup_lib.set_up(config)
