"""Every command and every block of Python in the documentation is run, on small settings."""

import dataclasses
import os
import runpy
import shutil
import sys

from absl import app, flags  # noqa: F401  app has flags of its own, which must outlive the first command
from documented import PAGES, REPO, commands, python_blocks
import jax
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.studies import grids

sys.path[:0] = [str(REPO / "tests" / name) for name in ("", "input", "weights")]
import goldens  # noqa: E402
from tars import photographs  # noqa: E402
from test_configs import SMALL_MODELS  # noqa: E402

# Run by other tests: (program, its first word that is no flag) -> the files, in which all its flags must occur.
_ELSEWHERE = {
  ("mlpvision.benchmark", "data"): "benchmarking/test_data.py",
  ("mlpvision.benchmark", "step"): "benchmarking/test_step_benchmark.py",
  ("mlpvision.benchmark", "train"): "benchmarking/test_step_benchmark.py benchmarking/test_data.py",
  ("mlpvision.prepare", "imagenet2012"): "input/test_preparation.py",
  ("mlpvision.prepare", "imagenet21k/fall11"): "input/test_imagenet21k.py",
  ("mlpvision.prepare", "imagenet21k/winter21_256"): "input/test_preparation.py",
  ("mlpvision.prepare", "imagenet21k/p"): "input/test_imagenet21k.py",
}
# Run by no test, and why. Their flags are parsed all the same.
_NOT_RUN = {
  ("mlpvision.plan", None): "takes libtpu, and hours for all recipes; tests/planning has it with a small model",
  ("mlpvision.prepare", "cifar10"): "downloads",
  ("pytest", None): "CI runs it",
  ("tests/campaign.py", None): "takes a quarter of an hour, and root; tests/test_campaign.py runs a part of it",
}

# What takes the place of what readers fill in.
_PLACEHOLDERS = {
  "config=...": "config=configs/quickstart.py",
  "folder:PATH": "folder:photographs",
  "folder:IMAGENET100": "folder:photographs",
  "gs://BUCKET": "bucket",
  "/shared/": "",
  "NAME": "mnist5k",
  "WEIGHTS": "mixer_b16.goog_in1k",
}
# Small settings, where the command does not say these itself.
_SMALL = {
  "train.py": ("--config.duration=2 steps", "--config.optim.schedule.warmup=1 step", "--config.data.batch_size=16"),
  "mlpvision.study": ("--seeds=1", "--duration=1 epoch", "--workdir=runs/study"),
  "mlpvision.preview": ("--images=4",),
}
_PLACES = ("--workdir=", "--output=", "--config.data.data_dir=")
_QUICKSTART = next(command for command in commands() if command.arguments == ("--config=configs/quickstart.py",))


def _is_in(table, command):
  """The key of a command in _ELSEWHERE or _NOT_RUN, or None."""
  first = next((part for part in command.arguments if not part.startswith("-")), None)
  return next((key for key in ((command.program, first), (command.program, None)) if key in table), None)


def _small(command):
  """The command's arguments, filled in, with small settings."""
  arguments = []
  for argument in command.arguments:
    for placeholder, meaning in _PLACEHOLDERS.items():
      argument = argument.replace(placeholder, meaning)
    arguments.append(argument)
  added = list(_SMALL.get(command.program, ()))
  joined = " ".join(arguments)
  if "--config=" in joined and command.program != "mlpvision.cost":
    added += ["--config.data.workers=0", "--config.eval.batch_size=16"]
    if "--config.data.name" not in joined:
      added += ["--config.data.name=mnist5k", "--config.data.eval_split=test[:16]"]
    if "quickstart" in joined:
      added += ["--config.model.num_blocks=1", "--config.model.hidden_dim=16"]
    elif "finetune" not in joined:  # whose weights are for 224 pixels
      added += ["--config.data.image_size=32"]
  given = {argument.partition("=")[0] for argument in arguments}
  return [*arguments, *(flag for flag in added if flag.partition("=")[0] not in given)]


def _distinct():
  """Of commands that differ in where something lies alone, the first."""
  found = {}
  for command in commands():
    if _is_in(_ELSEWHERE | _NOT_RUN, command) is None:
      what = [part for part in _small(command) if not part.startswith(_PLACES)]
      found.setdefault((command.program, *what), command)
  return list(found.values())


def _run(command, *more):
  """In this process, as `python` would; its exit code must be 0."""
  argv, code = sys.argv, 0
  sys.argv = [command.program, *_small(command), *more]
  try:
    if command.program.endswith(".py"):
      runpy.run_path(str(REPO / command.program), run_name="__main__")
    else:
      runpy.run_module(command.program, run_name="__main__", alter_sys=True)
  except SystemExit as end:
    code = end.code
  finally:
    sys.argv = argv
    for name in list(flags.FLAGS):  # the command's own, which the next one may define again
      if name.startswith("config") or flags.FLAGS.find_module_defining_flag(name).startswith(str(REPO)):
        delattr(flags.FLAGS, name)
  assert not code, f"ended with {code}"


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_dir):
  """A directory like the repository's root after the quickstart, with pictures and weights; all models are small."""
  root = tmp_path_factory.mktemp("docs")
  (root / "configs").symlink_to(REPO / "configs")
  shutil.copytree(REPO / "docs", root / "docs", ignore=shutil.ignore_patterns("*.png"))
  (root / "bucket").mkdir()
  (root / "bucket" / "tfds").symlink_to(data_dir)
  pictures = photographs(40)
  pictures[0].save(root / "photo.png")
  for i, picture in enumerate(pictures):
    path = root / "photographs" / ("train" if i < 36 else "val") / ("n02105855", "n01440764")[i % 2] / f"{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    patch.setenv("MLPVISION_CACHE", str(root / "cache"))
    for name, (module, sizes) in models.MODELS.items():
      patch.setitem(models.MODELS, name, (module, sizes | SMALL_MODELS[name.partition("_")[0]]))
    _save_weights(root)
    _run(_QUICKSTART)
    yield root


def _save_weights(root):
  """A file of an official release, and what names of published weights stand for, where downloads would be."""
  goldens.write(root, "asmlp").rename(root / "as_tiny.pth")
  (root / "cache").mkdir()
  for name, num_classes in (("mixer_b16.goog_in1k", 1000), ("mixer_b16.goog_in21k", 21_843)):
    model = models.create("mixer_b16", num_classes=num_classes)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))["params"]
    weights.save(root / "cache" / f"{name}.npz", model, params)


@pytest.fixture
def short_studies(monkeypatch):
  """Of every study two rows, small models and few images."""
  for name, study in grids.STUDIES.items():
    laptop = study.laptop | SMALL_MODELS["s2mlp"] | dict(patch_size=4) if name.startswith("s2mlp") else study.laptop
    monkeypatch.setitem(grids.STUDIES, name, dataclasses.replace(study, rows=study.rows[:2], laptop=laptop, order=()))
  few = dict(train_split="train[:160]", eval_split="test[:16]")
  settings = grids.quickstart
  monkeypatch.setattr(grids, "quickstart", lambda config: (settings(config), config.data.update(few)))


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in _distinct() if command is not _QUICKSTART], ids=str)
def test_command(command, place, tmp_path, short_studies):
  _run(command, *((f"--workdir={tmp_path}/run",) if command.program == "train.py" else ()))
  output = next((part.partition("=")[2] for part in command.arguments if part.startswith("--output=")), None)
  assert output is None or os.path.getsize(place / output)


@pytest.mark.parametrize("command", [c for c in commands() if _is_in(_ELSEWHERE, c)], ids=str)
def test_command_that_another_test_runs(command):
  key = _is_in(_ELSEWHERE, command)
  source = "".join((REPO / "tests" / name).read_text() for name in _ELSEWHERE[key].split())
  assert key[0] in source
  assert key[1] in source
  for flag in command.flags:
    assert flag.startswith("config") or f"--{flag}" in source, f"{_ELSEWHERE[key]} does not try --{flag}"


def test_no_excuse_is_stale():
  found = {_is_in(_ELSEWHERE | _NOT_RUN, command) for command in commands()}
  assert found - {None} == set(_ELSEWHERE | _NOT_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_python(page, place):
  """All blocks of a page, one after the other."""
  names = {}
  for code in python_blocks(page):
    exec(compile(code, str(page), "exec"), names)
