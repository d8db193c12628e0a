"""Compares a gradient under plain `jax.jit` with the same under the train step's compiler options, in CPU time.

  python -m benchmarks.plain_jit
  python -m benchmarks.plain_jit --models=mixer_b16,asmlp_tiny --batch_size=4 --rounds=6

float32, 224 pixels, on CPU. Loss and gradients of all parameters, with contenders taking turns; the least of the rounds
counts.
"""

import os
import time

os.environ["JAX_PLATFORMS"] = "cpu"

from absl import flags
import jax
import jax.numpy as jnp
import optax

from mlpvision import commands, models

_FIRST = [next(iter(family.variants)) for family in models.FAMILIES]
_MODELS = flags.DEFINE_list("models", _FIRST, "Variants; default: the first of each family.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Images.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Steps of each contender.", lower_bound=1)


def main(argv: list[str]) -> None:
  """Compiles, measures and prints a row for each model."""
  del argv
  options = models.compiler_options("cpu")
  print(f"{'':20s}{'plain':>9s}{'options':>9s}  CPU s a step   plain/options   compilation: plain, options", flush=True)
  for name in _MODELS.value:
    compiled, compilation = {}, {}
    for kind, chosen in (("plain", {}), ("options", options)):
      begin = time.process_time()
      compiled[kind], arguments = _gradient(name, chosen)
      compilation[kind] = time.process_time() - begin
    least = dict.fromkeys(compiled, float("inf"))
    for _ in range(_ROUNDS.value):
      for kind, step in compiled.items():
        begin = time.process_time()
        jax.block_until_ready(step(*arguments))
        least[kind] = min(least[kind], time.process_time() - begin)
    plain, chosen = least.values()
    seconds = ", ".join(f"{value:.1f}" for value in compilation.values())
    print(f"{name:20s}{plain:9.3f}{chosen:9.3f}{plain / chosen:29.3f}   {seconds:>26s}", flush=True)
    jax.clear_caches()


def _gradient(name, options):
  model = models.create(name, num_classes=1000)
  images = jax.random.normal(jax.random.key(0), (_BATCH_SIZE.value, 224, 224, 3))
  labels = jnp.arange(_BATCH_SIZE.value)
  params = jax.jit(model.init)(jax.random.key(1), images[:1])["params"]

  def loss(params, images):
    return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, images), labels).mean()

  step = jax.jit(jax.value_and_grad(loss), compiler_options=options)
  return step.lower(params, images).compile(), (params, images)


if __name__ == "__main__":
  commands.keep_freed_memory()
  commands.run(main)
