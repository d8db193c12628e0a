"""The wheel, in an environment and a directory of its own: nothing of the checkout is within its reach."""

import email
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

from conftest import REPO
from PIL import Image
import pytest
from sklearn.datasets import load_sample_images

from mlpvision.training import loop

# What a user of the library does, in one process.
_USE = """
import importlib.util, json, sys
import mlpvision

workdir, picture, weight_file = sys.argv[1:]
imported = [name for name in ("tensorflow", "jax") if name in sys.modules]
trained = mlpvision.load(workdir)
(ranking,) = trained.predict(picture, top=3)
before_evaluation = "tensorflow" in sys.modules

from mlpvision import weights
from mlpvision.export import formats
from mlpvision.data import imagenet
from mlpvision.evaluate import run
formats.to_safetensors(trained, weight_file)
(again,) = mlpvision.load(weight_file).predict(picture, top=3)
print(json.dumps({
  "file": mlpvision.__file__,
  "imported": imported,
  "tensorflow": before_evaluation,
  "configs": importlib.util.find_spec("configs") is not None,
  "models": mlpvision.list_models("s2mlp_*"),
  "predicted": ranking,
  "from_file": [probability for _, probability, _ in again],
  "words": imagenet.words("n01440764"),
  "evaluated": run.evaluate(workdir),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
  """The interpreter of a new environment: the wheel, and from the running environment what the wheel depends on."""
  root = tmp_path_factory.mktemp("wheel")
  source = root / "source"  # setuptools leaves a build directory behind, and would pack what lies in an old one
  for name in ("mlpvision", "configs"):
    shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
    shutil.copy(REPO / name, source)
  _call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", root, source)
  (wheel,) = root.glob("mlpvision-*.whl")
  _call(sys.executable, "-m", "venv", "--without-pip", root / "venv")
  path = root / "venv" / "bin" / "python"
  _call(sys.executable, "-m", "pip", "--python", path, "install", "--quiet", "--no-deps", wheel)
  # A path that a .pth file adds comes last, and the .pth files in it, which an editable checkout needs, are not read.
  (packages,) = (root / "venv").glob("lib/python*/site-packages")
  directories = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
  (packages / "dependencies.pth").write_text("\n".join(directories))
  return path


def _call(*command, **options):
  done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def _outside():
  """The environment variables of somebody who has no checkout."""
  return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}


@pytest.mark.slow
def test_it_loads_predicts_and_evaluates(python, small_config, tmp_path):
  for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
    (tmp_path / "photos" / name).mkdir(parents=True)
    for i in range(12):
      Image.fromarray(photo[20 * i : 20 * i + 90, 30 * i : 30 * i + 120]).save(tmp_path / "photos" / name / f"{i}.jpg")
  small_config.data.update(name=f"folder:{tmp_path / 'photos'}", train_split="train", eval_split="train[:50%]")
  small_config.data.batch_size, small_config.duration, small_config.optim.schedule.warmup = 8, "2 steps", "0 steps"
  result = loop.train_and_evaluate(small_config, str(tmp_path / "run"))

  empty = tmp_path / "empty"
  empty.mkdir()
  arguments = (tmp_path / "run", tmp_path / "photos" / "flower" / "0.jpg", empty / "small.safetensors")
  found = json.loads(_call(python, "-c", _USE, *arguments, cwd=empty, env=_outside()).splitlines()[-1])
  assert pathlib.Path(found["file"]).is_relative_to(python.parent.parent)
  assert not found["imported"]
  assert not found["tensorflow"]
  assert not found["configs"]
  assert found["models"] == ["s2mlp_wide", "s2mlp_deep"]
  names, probabilities, _ = zip(*found["predicted"], strict=True)
  assert set(names) == {"flower", "temple"}
  assert sum(probabilities) == pytest.approx(1)
  assert found["from_file"] == pytest.approx(probabilities)
  assert found["words"].startswith("tench")
  evaluated = found["evaluated"]
  assert (evaluated["step"], evaluated["images"]) == (2, 12)
  assert evaluated["top1"] == result.metrics["val/top1"]
  assert evaluated["loss"] == pytest.approx(result.metrics["val/loss"], rel=1e-5)


@pytest.mark.slow
def test_the_readme_s_pictures_and_links_have_addresses(python):
  """A package index shows the README without the files beside it; each address is one of a file of the repository."""
  (metadata,) = (python.parent.parent / "lib").glob("python*/site-packages/mlpvision-*.dist-info/METADATA")
  message = email.message_from_string(metadata.read_text())
  url = dict(line.split(", ") for line in message.get_all("Project-URL"))["Repository"]
  assert message["Description-Content-Type"] == "text/markdown"
  links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", message.get_payload())
  assert sum(is_picture == "!" for is_picture, _ in links) == (REPO / "README.md").read_text().count("![") > 0
  for is_picture, link in links:
    assert link.startswith("https://"), link
    if link.startswith(url):
      kind, path = link.removeprefix(f"{url}/").split("/main/")
      assert kind == ("raw" if is_picture else "blob")
      assert (REPO / path.partition("#")[0]).exists(), link


@pytest.mark.slow
def test_a_config_is_found_by_its_name(python, tmp_path):
  """In an empty directory: its fields, and a message of the train step's set-up, which no file's absence precedes."""
  command = python.with_name("mlpvision")
  fields = _call(command, "train", "--config=mask_rcnn_asmlp_tiny:3x", "--help", cwd=tmp_path, env=_outside())
  assert '--config.duration="36 epochs"' in fields
  done = subprocess.run(
    [command, "train", "--config=quickstart", "--config.data.image_size=30"],
    cwd=tmp_path, env=_outside(), capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2, done.stderr
  assert "images of 30x30 cannot be cut into patches of 4x4" in done.stderr


@pytest.mark.slow
def test_own_configs_start_from_the_package_s(python, tmp_path):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "sizes.py").write_text("SEED = 12\n")
  lines = ("from configs import quickstart, sizes", "def get_config():", "  config = quickstart.get_config()")
  (tmp_path / "configs" / "mine.py").write_text("\n".join([*lines, "  config.seed = sizes.SEED", "  return config"]))
  command = python.with_name("mlpvision")
  assert "--config.seed=12\n" in _call(
    command, "train", "--config=configs/mine.py", "--help", cwd=tmp_path, env=_outside()
  )


@pytest.mark.slow
def test_a_file_of_the_repository_is_named_with_the_package_s_own(python, tmp_path):
  done = subprocess.run(
    [python, "-m", "mlpvision.evaluate", "--weights=x", "--config=configs/quickstart.py", "--config.data.name=y"],
    cwd=tmp_path, env=_outside(), capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stderr.endswith("'configs/quickstart.py'. Did you mean --config=quickstart?\n")
  assert done.stderr.count("\n") == 1


_OWN_CONFIG = """
from ml_collections import ConfigDict
def get_config():
  augment = dict(randaugment="", repeats=1, mixup=0.0, cutmix=0.0, flip=0.0, random_erasing=0.0, crop="random_resized")
  return ConfigDict(dict(augment=augment, accumulation_steps=1, data=dict(batch_size=2, name="mnist5k")))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("arguments", "missing"),
  [
    (("draw", "architecture", "mixer", "--output=a.png"), "docs/tools/architecture.py"),
    (("draw", "published", "--output=a.png"), "docs/tools/models_page.py"),
    (("cost", "--write=models.md"), "docs/tools/models_page.py"),
    (("plan", "--config=own.py", "--topology=v5e:2x2", "--write=page.md"), "docs/tools/plan_page.py"),
    (("benchmark", "step", "--config=own.py", "--peers"), "benchmarks/peers.py"),
  ],
)
def test_tools_of_the_repository_are_named_where_they_are_missing(python, tmp_path, arguments, missing):
  (tmp_path / "own.py").write_text(_OWN_CONFIG)
  command, *flags = arguments
  done = subprocess.run(
    [python, "-m", f"mlpvision.{command}", *flags],
    cwd=tmp_path, env=_outside(), capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2
  assert missing in done.stderr
  assert "comes with the repository" in done.stderr
  assert "Traceback" not in done.stderr
