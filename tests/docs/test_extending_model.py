"""The model of extending.md, added to a copy of the repository as the page says, does all that a model can do."""

import os
import re
import shutil
import subprocess
import sys

from documented import REPO, files, python_blocks
import pytest

_PAGE = REPO / "docs" / "extending.md"
_USE = """
import jax, jax.export, numpy as np, safetensors.numpy
import mlpvision
from flax.traverse_util import flatten_dict
from configs import tiny
from mlpvision import augment, weights
from mlpvision.export import formats
from mlpvision.training import loop, lr_multipliers, setup

config = tiny.get_config()
config.data.batch_size, config.data.workers, config.data.eval_split = 16, 0, "test[:16]"
config.optim.schedule.warmup, config.duration = "1 step", "2 steps"
config.optim.layer_decay = 0.5
config.mesh.update(data=4, model=2)
params = setup.set_up(config).abstract.params
factors = lr_multipliers.factors(params, (), 0.5)
assert [set(jax.tree.leaves(factors[name])) for name in ("stem", "block_0", "block_1", "head")] == [
  {0.125}, {0.25}, {0.5}, {1.0}
]
shapes = {path: leaf.sharding.shard_shape(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items()}
mlp = "block_1/channel_mixing/"
assert (shapes[mlp + "Dense_0/kernel"], shapes[mlp + "Dense_1/kernel"]) == ((64, 64), (64, 64))
assert shapes[mlp + "Dense_0/bias"] == (64,)

assert loop.train_and_evaluate(config, "run").step == 2
trained = mlpvision.load("run")
formats.to_safetensors(trained, "tiny.safetensors")
again = mlpvision.load("tiny.safetensors")
assert (again.model, again.class_names) == (trained.model, trained.class_names)
jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
np.testing.assert_equal(again.predict(picture), trained.predict(picture))

names = safetensors.numpy.load_file("tiny.safetensors")
assert "block_0.channel_mixing.Dense_0.kernel" in names
safetensors.numpy.save_file(names, "plain.safetensors")  # without what we note beside the arrays: its shapes tell
loaded = weights.load("plain.safetensors", image_size=(32, 56))
assert (loaded.module, loaded.info.model_name, loaded.info.naming) == (trained.model, "tiny", "mlpvision")
assert loaded.module.apply({"params": loaded.params}, np.zeros((1, 32, 56, 3))).shape == (1, 10)
try:
  weights.load("plain.safetensors", image_size=30)
except ValueError as error:
  assert "30x30" in str(error)
else:
  raise AssertionError("30 pixels are no whole number of patches")

formats.to_stablehlo(trained, "tiny.stablehlo")
images = np.stack([picture[:28, :28]] * 3)
logits = jax.export.deserialize(bytearray(open("tiny.stablehlo", "rb").read())).call(images)
normalized = augment.normalize(images, config.data.mean, config.data.std)
np.testing.assert_allclose(logits, trained.model.apply({"params": trained.params}, normalized), rtol=1e-5, atol=1e-5)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
  """A copy of what the page changes and the tests need, changed as the page says."""
  root = tmp_path_factory.mktemp("extended")
  for name in ("configs", "mlpvision", "tests", "docs"):
    shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
  page = " ".join(_PAGE.read_text().split())
  for path, code in files(_PAGE).items():
    if path.endswith("tiny.py"):
      (root / path).write_text(code)

  def add(path, sentence, pattern, addition):
    assert sentence in page
    text, count = re.subn(pattern, lambda match: match[0] + addition, (root / path).read_text(), flags=re.MULTILINE)
    assert count == 1, f"{path}: {pattern}"
    (root / path).write_text(text)

  models = "mlpvision/models/__init__.py"
  add(
    models, f"`{models}`: add `tiny` to the import of the families", r"^from mlpvision.models import \($", "\n  tiny,"
  )
  add(models, "`tiny.FAMILY` to `FAMILIES`", r"^FAMILIES = \($", "\n  tiny.FAMILY,")
  row = 'Row("tiny", 224, "", "", "", ""),'
  add("docs/tools/published.py", f"`{row}` to `ROWS`", r"^ROWS = \($", f"\n  {row}")
  (row,) = [code for code in python_blocks(_PAGE) if code.startswith('"tiny": Row(')]
  add("tests/families.py", "`tests/families.py`: add a row to `FAMILIES`", r"^FAMILIES = {$", f"\n{row}")
  _run(root, "-m", "mlpvision.cost", "--write=docs/models.md")
  return root


def _run(root, *arguments):
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests" / "nonetwork")])}
  process = subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)
  assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]


@pytest.mark.slow
def test_it_trains_exports_saves_loads_predicts_and_resizes(extended):
  _run(extended, "-c", _USE)


@pytest.mark.slow
def test_it_passes_the_tests_that_the_page_names(extended):
  tests = ("tests/models/test_contract.py", "tests/models/test_cost.py", "tests/weights/test_save.py")
  for test in tests:
    assert f"`{test}`" in _PAGE.read_text()
  # Its own cases, and the tests of the tables; not asmlp_tiny's, and not the one that counts all variants once more.
  names = "((tiny and not asmlp and not swin) or row or counted) and not current"
  _run(extended, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", names, *tests)
