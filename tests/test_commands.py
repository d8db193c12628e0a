"""The commands as their users run them, without network; in processes of their own, except for what ends soon."""

import json
import os
import re
import signal

from conftest import REPO, SMALL
import numpy as np
from PIL import Image
import pytest
import test_layering

from mlpvision.__main__ import COMMANDS
from mlpvision.checkpoints import load_variables
from mlpvision.data import datasets, transforms

_DEFAULTS = REPO / "configs" / "default.py"
_STEPS = 60


def _train(workdir, *more, steps=_STEPS):
  # A checkpoint every few steps; one evaluation, at the end.
  every = ("--config.checkpoint.every=8 steps", "--config.eval.every=1000 steps", "--config.log_every=2 steps")
  return ("train.py", *SMALL, f"--config.duration={steps} steps", *every, f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
  """A run that nobody stopped: its workdir."""
  del data_dir
  import subprocess
  import sys

  from conftest import _TESTS, QUICK

  workdir = tmp_path_factory.mktemp("finished")
  env = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": os.pathsep.join([str(_TESTS / "nonetwork"), str(REPO)])}
  done = subprocess.run(
    [sys.executable, *_train(workdir)], cwd=REPO, env=env, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  (workdir / "output.txt").write_text(done.stdout)
  return workdir


def _same_parameters(a, b):
  (variables_a, _, step_a), (variables_b, _, step_b) = load_variables(a), load_variables(b)
  assert step_a == step_b == _STEPS
  import jax

  jax.tree.map(np.testing.assert_array_equal, variables_a, variables_b)


def test_what_a_run_says_and_leaves(finished):
  output = (finished / "output.txt").read_text()
  for pattern in (
    r"s2mlp_wide on mnist5k:train: 4,000 images, 10 classes",
    r"parameters\s+[\d,]+\n1 x cpu in 1 process, mesh data=1\n",
    r"compiled in \d+ s; memory per device: \d+ MiB",
    r"GFLOP per image",
    r"step +2/60  epoch 0\.02  loss \d\.\d+  [\d,]+ images/s  data wait \d+%  ETA \d+:\d\d\n",
    r"step 60: top-1 \d+\.\d+%  top-5 \d+\.\d+%  loss \d\.\d+  on 1,000 test images",
    r"done: top-1 ",
  ):
    assert re.search(pattern, output), f"{pattern} not in\n{output}"
  rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if "train/loss" in row] == list(range(2, 61, 2))
  assert {"train/top1", "train/grad_norm", "train/learning_rate", "perf/images_per_second", "perf/data_wait"} <= set(
    rows[0]
  )
  assert list(finished.glob("events.out.tfevents.*"))
  Image.open(finished / "curves.png").verify()


def _wait_for(process, text):
  """Reads the output up to the first line that has text."""
  lines = []
  for line in process.stdout:
    lines.append(line)
    if text in line:
      return lines
  raise AssertionError(f"{text!r} never came:\n{''.join(lines)}")


@pytest.mark.parametrize(
  ("number", "workers"), [pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow), (signal.SIGINT, 1)]
)
def test_a_signal_saves_and_the_same_command_continues(start, command, finished, tmp_path, number, workers):
  process = start(*_train(tmp_path), f"--config.data.workers={workers}")
  _wait_for(process, "step 10/60")
  os.killpg(process.pid, number)  # as a terminal does it: to the process and its workers
  rest = process.stdout.read()
  assert process.wait() == 0, rest
  stopped = re.search(r"stopped after step (\d+); to resume: python (train\.py .*)\n", rest)
  assert stopped, rest
  assert 10 <= int(stopped[1]) < _STEPS
  assert load_variables(tmp_path)[2] == int(stopped[1])
  code, output = command(*_train(tmp_path))
  assert code == 0
  assert f"resuming from step {stopped[1]}\n" in output
  _same_parameters(tmp_path, finished)
  assert _logged(tmp_path) == _logged(finished)


def _logged(workdir):
  """All that was logged, except times: a stop must neither lose, repeat nor change a row."""
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [{key: value for key, value in row.items() if not key.startswith("perf/")} for row in rows]


def test_a_finished_run_only_evaluates(here, finished):
  code, output = here(*_train(finished))
  assert code == 0
  assert "images/s" not in output
  assert "done: top-1" in output


def test_another_config_is_refused_with_the_difference(here, finished):
  code, output = here(*_train(finished, "--config.optim.learning_rate=0.5", "--config.model.directions=none"))
  assert code == 2
  assert "model.directions: 'four' -> 'none'\n  optim.learning_rate: 0.002 -> 0.5\n" in output
  assert "--workdir" in output


_BAD = {
  "unknown field": (["--config.data.batchsize=3"], "no field 'batchsize'. Did you mean \"batch_size\"?"),
  "unknown group": (["--config.modle.name=x"], "no field 'modle'"),
  "wrong type": (["--config.data.batch_size=many"], "many"),
  "patch": (["--config.data.image_size=30"], "images of 30x30 cannot be cut into patches of 4x4"),
  "workdir": (["--workdir=/proc/nowhere"], "cannot write to the workdir /proc/nowhere"),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_input_is_refused_before_the_first_step(here, tmp_path, case):
  arguments, message = _BAD[case]
  code, output = here(*_train(tmp_path / "run", *arguments))
  assert code not in (0, None)
  assert message in output
  assert "Traceback" not in output
  assert "step " not in output


@pytest.mark.slow
@pytest.mark.parametrize(
  "flags",
  [
    ["--config.data.batch_size=1", "--config.data.workers=1", "--config.data.eval_split=test[:1]"],
    ["--config.data.train_split=train[:1]", "--config.eval.batch_size=1", "--config.data.eval_split=test[:2]"],
    ["--config.data.batch_size=3", "--config.augment.repeats=3", "--config.data.eval_split=test[:1]"],
  ],
)
def test_the_smallest_runs(command, tmp_path, flags):
  code, output = command(*_train(tmp_path, *flags, "--config.optim.schedule.warmup=1 step", steps=2))
  assert code == 0, output
  assert "done: top-1 " in output


def test_batch_that_the_devices_do_not_divide(here, tmp_path):
  code, output = here(*_train(tmp_path, "--config.data.batch_size=20"))
  assert code == 2
  assert "cannot be split evenly over 8 devices: use a multiple of 8" in output


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_an_accelerator_that_is_not_there(command, tmp_path, platform):
  code, output = command(*_train(tmp_path), JAX_PLATFORMS=platform)
  assert code == 2
  assert output.startswith(f"error: JAX_PLATFORMS={platform}, but JAX finds no such device here")
  assert output.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_while_the_step_is_compiled(start, tmp_path):
  process = start(*_train(tmp_path, steps=3000))
  for line in process.stdout:
    if "everything goes to" in line:
      break
  process.send_signal(signal.SIGINT)
  output = process.stdout.read()
  assert process.wait() == 0, output
  assert "SIGINT: stopped before the first step; to resume: python train.py" in output


def test_the_command_lists_the_commands(here):
  code, output = here("-m", "mlpvision", "--help")
  assert code == 0
  modules = {name.removesuffix(".__main__") for name in test_layering.commands_of_the_package()}
  assert {module for module, _ in COMMANDS.values()} == modules
  assert all(f"  {name} " in output and line in output for name, (_, line) in COMMANDS.items())
  assert here("-m", "mlpvision", "trian") == (2, "error: no command 'trian'. Did you mean \"train\"?\n")


def test_help_is_short_and_names_flags_and_configs(here):
  code, output = here("-m", "mlpvision", "train", "--help")
  assert code == 0
  assert len(output.splitlines()) < 40
  assert all(text in output for text in ("--config=NAME or FILE", "--workdir=PATH", "mask_rcnn_asmlp_tiny"))


def test_help_on_a_config(here):
  code, output = here("-m", "mlpvision", "train", "--config=mask_rcnn_asmlp_tiny:3x", "--help")
  assert code == 0
  fields = re.findall(r"^  --config\.([\w.]+)=", output, re.MULTILINE)
  assert set(fields) >= set(re.findall(r"^  config\.([\w.]+) = (?![a-z_]+[.(])", _DEFAULTS.read_text(), re.MULTILINE))
  assert '--config.duration="36 epochs"\n      Length of the training run' in output


_BAD_FLAGS = {
  "train": "--config is missing",
  "train --config=quikstart": "there is no file 'quikstart'. Did you mean --config=quickstart?",
  "train --config=mask_rcnn_asmlp_tiny:9x": "the argument is '9x'",
  "train --config=quickstart --config.data.batch_size=x": "--config.data.batch_size=x",
  "train --foo": "there is no flag --foo. --help lists the flags",
  "train --wordkir=x": "there is no flag --wordkir. Did you mean --workdir?",
  "predict --top=x": "--top=x",
  "predict --weights=x": "name at least one image",
}


@pytest.mark.parametrize("line", _BAD_FLAGS)
def test_a_bad_flag_is_one_line(here, line):
  code, output = here("-m", "mlpvision", *line.split())
  assert code == 2
  assert output.startswith("error: ")
  assert output.count("\n") == 1
  assert _BAD_FLAGS[line] in output


def test_a_field_without_a_config(here):
  code, output = here("-m", "mlpvision.evaluate", "--weights=x", "--config.data.name=folder:x")
  assert (code, output) == (2, "error: --config.data.name=folder:x changes a config: add --config=FILE\n")


@pytest.mark.parametrize("more", [[], ["--config.data.batch_size=8"]])
def test_a_config_that_is_not_there(here, more):
  code, output = here("train.py", "--config=configs/s3mlp.py", *more)
  assert code == 2
  assert "configs/s3mlp.py" in output
  assert "Traceback" not in output


def test_imagenet_is_missed_at_once(here, tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  code, output = here("train.py", "--config=configs/s2mlp_wide.py")
  assert code == 2
  assert "blocked" not in output  # nothing asked the network, as tfds alone does for minutes
  for text in (
    f"imagenet2012 is not in {tmp_path}",
    "ILSVRC2012_img_train.tar",
    f"python -m mlpvision.prepare imagenet2012 --data_dir={tmp_path} --manual_dir=DIR",
  ):
    assert text in output


def test_evaluate(here, finished):
  flags = (f"--weights={finished}", "--config.eval.batch_size=24", "--json")  # which does not divide 1,000
  code, output = here("-m", "mlpvision.evaluate", "--config=configs/quickstart.py", *flags)
  assert code == 0, output
  found = json.loads(output.splitlines()[-1])
  rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
  logged = next(row for row in rows if "val/top1" in row)
  assert (found["top1"], found["top5"], found["images"]) == (logged["val/top1"], logged["val/top5"], 1000)
  np.testing.assert_allclose(found["loss"], logged["val/loss"], rtol=1e-5)


def test_evaluate_another_checkpoint_on_more_devices(here, finished):
  code, output = here("-m", "mlpvision.evaluate", f"--weights={finished}/checkpoints/56")
  assert code == 0, output
  assert re.search(r"step 56, on mnist5k:test: 1,000 images\npreprocessing: 28 pixels.*\ntop-1 \d+\.\d{4}%", output)


def test_evaluate_without_weights(here, tmp_path):
  code, output = here("-m", "mlpvision.evaluate", f"--weights={tmp_path}")
  assert code == 2
  assert f"no checkpoint in {tmp_path}" in output


def test_predict(command, here, finished, tmp_path, data_dir):
  split = datasets.open_split("mnist5k", "test", str(data_dir))
  pixels = transforms.decode(split.source[0]["image"])
  digit = Image.fromarray(pixels)
  exif = Image.Exif()
  exif[0x0112] = 3
  files = {
    "colour.png": (digit, {}),
    "grey.png": (digit.convert("L"), {}),
    "alpha.png": (digit.convert("RGBA"), {}),
    "turned.png": (digit.rotate(180), {"exif": exif}),
    "odd.png": (digit.resize((113, 97)), {}),
  }
  for name, (picture, options) in files.items():
    picture.save(tmp_path / name, **options)
  paths = [str(tmp_path / name) for name in files]
  code, output = command("-m", "mlpvision.predict", f"--weights={finished}", "--json", *paths)
  assert code == 0, output
  found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
  assert [row["image"] for row in found] == paths
  for row in found:
    probabilities = [c["probability"] for c in row["classes"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert {c["name"] for c in row["classes"]} <= set("0123456789")
  for row in found[1:4]:
    assert row["classes"] == found[0]["classes"]
  assert found[4]["classes"][0]["name"] == found[0]["classes"][0]["name"]

  code, output = here("-m", "mlpvision.predict", f"--weights={finished}", "--top=1", paths[0])
  assert output.splitlines() == [
    paths[0],
    f"  {found[0]['classes'][0]['probability']:7.2%}  {found[0]['classes'][0]['name']}",
  ]


def test_predict_names_bad_pictures(here, finished, tmp_path):
  Image.effect_noise((28, 28), 50).save(tmp_path / "good.png")
  (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
  (tmp_path / "text.png").write_text("hello")
  paths = [str(tmp_path / name) for name in ("good.png", "cut.png", "text.png", "gone.png")]
  code, output = here("-m", "mlpvision.predict", f"--weights={finished}", *paths)
  assert code == 1
  assert output.startswith(f"{paths[0]}\n  ")
  assert all(f"\n{path}: " in output for path in paths[1:])
  assert "error: 3 could not be predicted:\n" in output
  assert "Traceback" not in output
  code, output = here("-m", "mlpvision.predict", "--weights=/nowhere", *paths[3:])
  assert (code, output) == (2, f"error: {paths[3]}: there is no such file\n")


def test_the_network_really_is_blocked(command):
  code, output = command("-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)")
  assert code == 1
  assert "network access is blocked in tests" in output
  import socket

  with pytest.raises(RuntimeError, match="blocked"):
    socket.getaddrinfo("example.com", 80)
