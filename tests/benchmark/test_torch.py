"""The PyTorch versions that the benchmark times compute what our models compute: logits and gradients."""

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import models

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
from benchmarks.create import create  # noqa: E402

_SMALL = dict(num_classes=7, num_blocks=2, hidden_dim=24)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mixer_s16", dict(_SMALL, tokens_mlp_dim=12, channels_mlp_dim=48)),
    ("mixer_s16", dict(_SMALL, tokens_mlp_dim=12, channels_mlp_dim=48, approximate_gelu=False)),
    ("resmlp_s12", _SMALL),
    ("s2mlp_wide", _SMALL),
    ("s2mlp_deep", dict(_SMALL, affine_init=0.5)),
    ("asmlp_tiny", dict(num_classes=7, hidden_dim=12, depths=(1, 2))),
  ],
)
def test_same_function(name, options):
  model = models.create(name, **options)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 48, 48, 3)).astype(np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  # Everywhere random, so that a bias or a scale that is left out shows.
  params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.2, 0.3, x.shape), jnp.float32), shapes)

  def loss(params):
    logits = model.apply({"params": params}, images, train=True)
    return -jax.nn.log_softmax(logits)[:, 3].mean(), logits

  (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
  theirs = create(model, 48, flatten_dict(params, sep="/"))
  out = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2)))
  assert np.abs(logits).max() > 0.1
  np.testing.assert_allclose(out.detach().numpy(), logits, rtol=2e-4, atol=2e-4 * np.abs(logits).max())

  torch.nn.functional.cross_entropy(out, torch.tensor([3, 3])).backward()
  norm = sum(float((p.grad**2).sum()) for p in theirs.parameters()) ** 0.5
  expected = sum(float((g**2).sum()) for g in jax.tree.leaves(grads)) ** 0.5
  assert norm == pytest.approx(expected, rel=1e-3)
