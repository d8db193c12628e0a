"""Every command and every block of Python in the documentation is run, on small settings."""

import ast
import dataclasses
import importlib.util
import os
import re
import shutil
import sys

from documented import PAGES, REPO, commands, files, python_blocks
import jax
import numpy as np
import pytest

from mlpvision import models, weights
from mlpvision.data import prepared
from mlpvision.prepare import builders
from mlpvision.training import optim
from studies import grids

sys.path[:0] = [str(REPO / "tests" / name) for name in ("", "input")]
import goldens  # noqa: E402
from small import SMALL_MODELS, small_arguments  # noqa: E402
import started  # noqa: E402
from tars import photographs  # noqa: E402

# Run by other tests: (program, its first word that is no flag) -> the files, in which all its flags must occur.
_ELSEWHERE = {
  ("mlpvision.benchmark", "data"): "benchmark/test_data.py",
  ("mlpvision.benchmark", "step"): "benchmark/test_step_benchmark.py",
  ("mlpvision.benchmark", "all"): "benchmark/test_all.py benchmark/test_data.py",
  ("mlpvision.benchmark", "train"): "benchmark/test_step_benchmark.py benchmark/test_data.py",
  ("mlpvision.prepare", "ade20k"): "input/test_ade20k.py input/test_preparation.py",
  ("mlpvision.prepare", "coco2017_instances"): "input/test_coco2017.py input/test_preparation.py",
  ("mlpvision.prepare", "imagenet2012"): "input/test_preparation.py",
  ("mlpvision.prepare", "imagenet21k/fall11"): "input/test_imagenet21k.py input/test_preparation.py",
  ("mlpvision.prepare", "imagenet21k/winter21_256"): "input/test_preparation.py",
  ("mlpvision.prepare", "imagenet21k/p"): "input/test_imagenet21k.py input/test_pieces.py",
}
# Run by no test, and why. Their flags are parsed all the same.
_NOT_RUN = {
  ("mlpvision.export", "--push=OWNER/NAME"): "tests/test_hub.py pushes to a server of the Hub's protocol",
  ("mlpvision.demo", None): "serves until Ctrl-C; tests/test_demo.py opens its page",
  ("mlpvision.predict", "--weights=hf://OWNER/NAME"): "tests/test_hub.py has its cache",
  ("mlpvision.average", None): "tests/test_average.py averages a run's checkpoints",
  ("mlpvision.cost", "--write=docs/models.md"): "tests/models/test_cost.py counts the whole table",
  ("mlpvision.draw", "published"): "counts every model at its full size, as tests/models/test_cost.py",
  ("docs.tools.hosts_page", None): "takes results of the benchmark on a quiet machine",
  ("benchmarks.plain_jit", None): "compiles full-size models for minutes",
  ("benchmarks.roi_align_forms", None): "takes libtpu and a quarter of an hour",
  ("studies", "asmlp_shift_size"): "as s2mlp_directions, which runs; tests/studies makes the models of its rows",
  ("studies", "families"): "as s2mlp_directions, which runs; tests/studies makes the models of its rows",
  ("mlpvision.plan", "--all"): "takes libtpu and hours",
  ("mlpvision.prepare", "cifar10"): "downloads",
  ("mlpvision.prepare", "hf:ILSVRC/imagenet-1k"): "downloads; tests/input/test_hf_datasets.py prepares a directory",
  ("pytest", None): "CI runs it",
  ("sphinx", None): "tests/docs/test_site.py builds the site",
  ("docs.tools.fork", None): "tests/docs/test_repository.py moves the project elsewhere",
  ("train.py", "--config=quickstart"): "tests/test_wheel.py finds it, and the same by its path is run",
  ("train.py", "--config=configs/quickstart_segmentation.py"): "the fixture `segmenter` trains it, and the notebook",
  ("train.py", "--config=configs/quickstart_detection.py"): "tests/test_detection.py overfits with it",
  ("train.py", "--config=configs/quickstart_distillation.py:teacher"): "tests/training/test_distill.py has a teacher",
  ("train.py", "--config=configs/quickstart_distillation.py"): "tests/training/test_distill.py trains with a teacher",
  ("train.py", "--config=configs/mask_rcnn_asmlp_tiny.py"): "tests/test_detection.py trains Mask R-CNN",
  ("train.py", "--config=configs/cascade_mask_rcnn_asmlp_base.py:3x"): "tests/test_configs.py traces its step",
  ("train.py", "--config=configs/upernet_asmlp_tiny.py"): "tests/test_segmentation.py trains UperNet",
  ("train.py", "--config=configs/upernet_finetune.py"): "tests/test_segmentation.py starts from a classifier",
  ("tests/campaign.py", None): "takes a quarter of an hour, and root; tests/test_campaign.py runs a part of it",
}

_PLACES = ("--workdir=", "--output=", "--config.data.data_dir=")
# Whose runs the others use: the quickstart's, and one on the reader's own pictures.
_FIRST = [
  next(c for c in commands() if c.arguments == ("--config=configs/quickstart.py",)),
  next(c for c in commands() if c.page == "index.md" and "--config.data.name=folder:PATH" in c.arguments),
]
_needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")
_needs_jax2onnx = pytest.mark.skipif(importlib.util.find_spec("jax2onnx") is None, reason="needs the extra `onnx`")
_WITH_PYTHON = [page for page in PAGES if python_blocks(page) and not files(page)]


def _is_in(table, command):
  """The key of a command in _ELSEWHERE or _NOT_RUN, or None."""
  words = [part for part in command.arguments if not part.startswith("-")][:1]
  return next(
    (key for word in (*words, *command.arguments[:1], None) if (key := (command.program, word)) in table), None
  )


def _distinct():
  """Of commands that differ in where something lies alone, the first."""
  found = {}
  for command in commands():
    if _is_in(_ELSEWHERE | _NOT_RUN, command) is None and "--help" not in command.arguments:
      what = sorted(part for part in small_arguments(command) if not part.startswith(_PLACES))
      found.setdefault((command.program, *what), command)
  return [pytest.param(command, marks=_needs(command)) for command in found.values() if command not in _FIRST]


def _needs(command):
  """The mark of a command that needs an extra."""
  if command.program == "mlpvision.plan":
    return _needs_libtpu
  return _needs_jax2onnx if "--format=onnx" in command.arguments else ()


def _run(command, *more):
  """The command with small settings must end well."""
  assert started.here(command.program, [*small_arguments(command), *more]) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_dir, segmenter, detection_run):
  """A directory like the repository's root after the quickstart, with pictures and weights; all models are small."""
  root = tmp_path_factory.mktemp("docs")
  shutil.copytree(REPO / "docs", root / "docs", ignore=shutil.ignore_patterns("*.png"))
  for name in ("configs", "bucket", "cache"):
    (root / name).mkdir()
  for config in (REPO / "configs").glob("*.py"):
    (root / "configs" / config.name).symlink_to(config)
  (root / "bucket" / "tfds").symlink_to(data_dir)
  pictures = photographs(40)
  pictures[0].save(root / "photo.png")
  for i, picture in enumerate(pictures):
    path = root / "pictures" / ("train" if i < 36 else "val") / ("n02105855", "n01440764")[i % 2] / f"{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    patch.setenv("MLPVISION_CACHE", str(root / "cache"))
    for name, (module, sizes) in models.MODELS.items():
      small = SMALL_MODELS[name.partition("_")[0]]
      one_block = {field: 1 for field in ("num_blocks",) if field in sizes}
      patch.setitem(models.MODELS, name, (module, sizes | small | one_block))
    _save_weights(root)
    _extend(root, patch)
    _run(_FIRST[0])
    _run(_FIRST[1], "--workdir=runs/pictures")
    (root / "runs" / "segmentation").symlink_to(segmenter)
    (root / "runs" / "detection").symlink_to(detection_run[1])
    yield root


def _save_weights(root):
  """A file of an official release, and what names of published weights stand for, where downloads would be."""
  goldens.write(root, "asmlp").rename(root / "as_tiny.pth")
  for name, num_classes, side in (("mixer_b16.goog_in1k", 1000, 224), ("mixer_b16.goog_in21k", 21_843, 32)):
    model = models.create("mixer_b16", num_classes=num_classes)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, side, side, 3), np.float32))["params"]
    weights.save(root / "cache" / f"{name}.npz", model, params)


def _extend(root, patch):
  """Puts the files of extending.md where it says, and does what else it says; its model is in test_extending_model."""
  for path, code in files(REPO / "docs" / "extending.md").items():
    if path.endswith("tiny.py") or (REPO / path).exists():
      continue
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(code)
  patch.setattr(builders, "__path__", [*builders.__path__, str(root / "mlpvision/prepare/builders")])
  patch.setitem(prepared.OWN, "photographs", ("mlpvision.prepare.builders.photographs", "Photographs", "sklearn"))


@pytest.fixture
def short_studies(monkeypatch):
  """Of every study one row, a small model and few images."""
  small = SMALL_MODELS["s2mlp"] | dict(patch_size=4, num_blocks=1)
  for name, study in grids.STUDIES.items():
    laptop = study.laptop | (small if name.startswith("s2mlp") else {})
    monkeypatch.setitem(grids.STUDIES, name, dataclasses.replace(study, rows=study.rows[:1], laptop=laptop, order=()))
  few = dict(train_split="train[:160]", eval_split="test[:16]")
  settings = grids.quickstart
  monkeypatch.setattr(grids, "quickstart", lambda config: (settings(config), config.data.update(few)))


@pytest.mark.slow
@pytest.mark.parametrize("command", _distinct(), ids=str)
def test_command(command, place, tmp_path, short_studies):
  has_workdir = command.program in ("train.py", "studies")
  _run(command, *((f"--workdir={tmp_path}/run",) if has_workdir else ()))
  output = next((part.partition("=")[2] for part in command.arguments if part.startswith("--output=")), None)
  assert output is None or os.path.getsize(place / output)


@pytest.mark.parametrize("command", {c.program: c for c in commands()}.values(), ids=lambda command: command.program)
def test_help(command, capsys):
  """Every command answers --help with what it is for."""
  without_absl = ("benchmarks.roi_align_forms", "docs.tools.hosts_page", "mlpvision.reporting.curves", "pytest")
  without_absl += ("tests/campaign.py", "tests/fuzzing.py", "docs.tools.fork", "sphinx")
  if command.program in without_absl:
    return
  assert started.here(command.program, ["--help"]) == 0
  description = ast.get_docstring(ast.parse(command.source.read_text()))
  assert re.split("[.:]", description)[0] in capsys.readouterr().out


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
@pytest.mark.parametrize(
  "page", [p for p in PAGES if python_blocks(p) and p.name != "extending.md"], ids=lambda page: page.name
)
def test_python(page, place):
  """All blocks of a page, one after the other."""
  names = {}
  for code in python_blocks(page):
    if "onnxruntime" in code:
      if importlib.util.find_spec("jax2onnx") is None:
        continue
      _run(next(c for c in commands() if "--format=onnx" in c.arguments))
    exec(compile(code, str(page), "exec"), names)


def test_the_evaluator_of_extending_is_the_package_s():
  (code,) = [code for code in python_blocks(REPO / "docs" / "extending.md") if "class Calibration" in code]
  assert code == (REPO / "mlpvision" / "evaluate" / "calibration.py").read_text()


def test_the_optimizer_that_extending_adds(monkeypatch):
  names = {}
  exec(next(code for code in python_blocks(REPO / "docs" / "extending.md") if "def sgdw" in code), names)
  monkeypatch.setitem(optim.OWN, "sgdw", names["sgdw"])
  optimizer = optim.make_optimizer("sgdw", lambda step: 0.1, weight_decay=0.5, kwargs={"momentum": 0.5})
  params = {"kernel": np.ones(2, np.float32), "bias": np.ones(2, np.float32)}
  state = optimizer.init(params)
  for expected in (1.0, 1.5):
    updates, state = optimizer.update(params, state, params)
    np.testing.assert_allclose(updates["bias"], -0.1 * expected, rtol=1e-6)
    np.testing.assert_allclose(updates["kernel"], -0.1 * (expected + 0.5), rtol=1e-6)


def test_the_augmentation_that_extending_adds():
  """A command of the page trains on the dataset that it adds."""
  names = {}
  exec(next(code for code in python_blocks(REPO / "docs" / "extending.md") if "def invert" in code), names)
  images = np.random.default_rng(0).random((64, 2, 2, 3))
  inverted = np.asarray(names["invert"](jax.random.key(0), images, 0.5))
  signs = np.sign(inverted[:, 0, 0, 0])
  assert 16 < (signs < 0).sum() < 48
  np.testing.assert_allclose(inverted, images * signs[:, None, None, None], rtol=1e-6)
