"""The notebooks, executed from top to bottom by a kernel, on small settings."""

import pathlib
import re
import tomllib

from conftest import QUICK
import nbclient
import nbformat
from packaging.requirements import Requirement
import pytest

_REPO = pathlib.Path(__file__).parent.parent
# What takes the place of the cell "settings".
_SMALL = {
  "detection": """
from configs import quickstart_detection
from mlpvision.prepare.builders import digit_scenes
digit_scenes._SCENES = {"train": 16, "test": 8}
STEPS, BATCH_SIZE, WORKDIR = 2, 8, "{tmp}/run"
MODEL = dict(hidden_dim=16, channels=8, head_dim=16, pre_nms=(20, 20), train_proposals=12, test_proposals=12)
MODEL |= dict(detections=4, rpn_samples=16, roi_samples=16)
config = quickstart_detection.get_config()
del config.model.depths
config.model.update(backbone="s2mlp_wide", num_blocks=1, patch_size=16)  # compiled faster than AS-MLP
quickstart_detection.get_config = lambda: config
""",
  "finetune": """
import jax, jax.numpy as jnp
from mlpvision import models, weights
MODEL = dict(name="mixer_b16", num_blocks=1, hidden_dim=16, patch_size=8, tokens_mlp_dim=8, channels_mlp_dim=16)
model = models.create(num_classes=5, **MODEL)
weights.save("{tmp}/mixer.npz", model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"])
WEIGHTS, IMAGE_SIZE, STEPS, BATCH_SIZE, WORKDIR = "{tmp}/mixer.npz", 32, 10, 20, "{tmp}/run"
""",
  "published_weights": """
import jax, jax.numpy as jnp
from mlpvision import models, weights
model = models.create("asmlp_tiny", num_classes=5, hidden_dim=8, depths=(1, 1))
view = weights.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=0.9, interpolation="bicubic", image_size=64)
params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
weights.save("{tmp}/small.safetensors", model, params, view)
WEIGHTS, PICTURE = "{tmp}/small.safetensors", ""
""",
  "quickstart": """
from configs import quickstart
config = quickstart.get_config()
config.model.update(num_blocks=1, hidden_dim=16)
quickstart.get_config = lambda: config
EPOCHS, WORKDIR = 0.2, "{tmp}/run"
""",
  "segmentation": """
from configs import quickstart_segmentation
from mlpvision.prepare.builders import digit_scenes
digit_scenes._SCENES = {"train": 16, "test": 8}
STEPS, BATCH_SIZE, SIZE, WORKDIR = 2, 8, 32, "{tmp}/run"
MODEL = dict(hidden_dim=16, channels=8, auxiliary_channels=8)
config = quickstart_segmentation.get_config()
del config.model.depths
config.model.update(backbone="s2mlp_wide", num_blocks=1, patch_size=16)  # compiled faster than AS-MLP
quickstart_segmentation.get_config = lambda: config
""",
  "receptive_fields": "IMAGE_SIZE, S2_BLOCKS, AS_DEPTHS = 64, 2, (1, 1)",
}


@pytest.mark.parametrize("path", sorted((_REPO / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_weights_that_a_notebook_names_exist(path):
  from mlpvision.weights import known

  cells = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
  names = re.findall(r'^WEIGHTS = "([^"]+)"', cells, re.M)
  assert len(names) == ("WEIGHTS" in cells)
  assert set(names) <= set(known.KNOWN)


def test_all_notebooks_are_covered():
  assert {path.stem for path in (_REPO / "notebooks").glob("*.ipynb")} == set(_SMALL)


@pytest.mark.parametrize("name", _SMALL)
def test_committed_notebooks_hold_no_output(name):
  cells = nbformat.read(_REPO / "notebooks" / f"{name}.ipynb", as_version=4).cells
  assert not any(cell.get("outputs") for cell in cells)


def test_what_notebooks_install_is_pinned():
  project = tomllib.loads((_REPO / "pyproject.toml").read_text())["project"]
  extras = project["optional-dependencies"]
  texts = [*project["dependencies"], *extras["quickstart"], *extras["detection"]]
  needed = [found for found in map(Requirement, texts) if found.name != project["name"]]
  lines = (_REPO / "notebooks" / "constraints.txt").read_text().splitlines()
  pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
  assert set(pinned) == {requirement.name for requirement in needed} - {"jax", "numpy"}
  for requirement in needed:
    assert requirement.name not in pinned or requirement.specifier.contains(pinned[requirement.name])
  for name in _SMALL:
    assert "-c notebooks/constraints.txt" in (_REPO / "notebooks" / f"{name}.ipynb").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", _SMALL)
def test_notebook_runs(name, tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", QUICK)
  monkeypatch.setenv("PYTHONPATH", str(_REPO))
  notebook = nbformat.read(_REPO / "notebooks" / f"{name}.ipynb", as_version=4)
  (settings,) = [cell for cell in notebook.cells if "settings" in cell.metadata.get("tags", ())]
  settings.source = _SMALL[name].replace("{tmp}", str(tmp_path))
  nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(_REPO)}}).execute()
  pictures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
  assert pictures
