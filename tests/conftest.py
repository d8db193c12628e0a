"""Fixtures: eight virtual devices, no network, the digits prepared once, commands run as their users run them."""

import contextlib
import gc
import os
import pathlib
import signal
import subprocess
import sys

# Tests compile more than they compute: without optimization and with the older emitters, in a quarter of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# Before JAX starts. Commands in subprocesses have one device; those that train for long are compiled as for a user.
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK}"
os.environ["JAX_PLATFORMS"] = "cpu"

_TESTS = pathlib.Path(__file__).parent
REPO = _TESTS.parent
sys.path[:0] = [str(REPO), str(_TESTS / "nonetwork")]

from mlpvision import commands  # noqa: E402

commands.keep_freed_memory()

from absl import app  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import sitecustomize  # noqa: E402, F401  blocks the network in this process

# pytest shows the stacks of a crash; commands run in this process would have them written into what a test captures.
app.faulthandler = None

# A model and a run small enough for a test, on the quickstart's images.
SMALL = (
  "--config=configs/quickstart.py",
  "--config.model.num_blocks=1",
  "--config.model.hidden_dim=16",
  "--config.data.batch_size=40",
  "--config.optim.schedule.warmup=5 steps",
)


def pytest_collection_finish():
  """Looks for garbage seldom, and not in what is imported by now: otherwise it takes an eighth of the time."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000, 10, 10)


# Files that share a long fixture, which every worker makes for itself: the runs of a segmenter and of a detector.
_TOGETHER = {
  "tests/test_segmentation_pictures.py": "tests/test_segmentation.py",
  "tests/test_detection.py": "tests/docs/test_executed.py",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """With --dist loadfile, files that share a long fixture run on one worker too, and the run survives a crash."""
  if config.getvalue("dist") != "loadfile":
    return None
  from xdist.scheduler import LoadFileScheduling

  class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid):
      path = super()._split_scope(nodeid)
      return _TOGETHER.get(path, path)

    def remove_node(self, node):
      # xdist 3.8 would hand out the crashed worker's finished files again, and wait for them forever.
      left = {scope: tests for scope, tests in self.assigned_work.pop(node).items() if not all(tests.values())}
      if not left:
        return None
      scope, tests = next(iter(left.items()))
      crashed = next(test for test, done in tests.items() if not done)
      tests[crashed] = True
      if all(tests.values()):
        del left[scope]
      self.workqueue.update(left)
      for other in self.assigned_work:
        self._reschedule(other)
      return crashed

  return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory):
  """A tfds directory of this test session, which all processes use."""
  path = tmp_path_factory.mktemp("tfds")
  os.environ["TFDS_DATA_DIR"] = str(path)
  # Many tests compile the same program, in this process, in commands or in another worker of xdist.
  base = tmp_path_factory.getbasetemp()
  of_session = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
  compiled = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(of_session))
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  jax.config.update("jax_compilation_cache_dir", compiled)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  return path


@pytest.fixture(scope="session")
def segmentation_run(scenes, tmp_path_factory):
  """(config, workdir, result) of a finished run of a tiny segmenter with an EMA."""
  from configs import quickstart_segmentation
  from mlpvision.training import loop

  config = quickstart_segmentation.get_config()
  del config.model.depths
  # Compiled faster than AS-MLP, which tests/models/test_pyramid.py and the documentation's commands have.
  config.model.update(backbone="s2mlp_wide", hidden_dim=16, num_blocks=1, patch_size=16)
  config.model.update(channels=8, auxiliary_channels=8, drop_path=0.1)
  config.data.update(image_size=64, batch_size=8, workers=0)
  config.augment.update(flip=0.5, photometric=True, cat_max_ratio=0.75)
  config.optim.schedule.update(warmup="1 step", clock="product")
  config.update(duration="4 steps", log_every="1 step", ema_decay=0.5)
  config.eval.update(every="2 steps", batch_size=5)
  config.checkpoint.update(every="2 steps", best="val/miou")
  workdir = tmp_path_factory.mktemp("segmentation") / "run"
  return config, workdir, loop.train_and_evaluate(config, workdir)


@pytest.fixture(scope="session")
def segmenter(segmentation_run):
  """The workdir of a tiny segmenter."""
  return segmentation_run[1]


@pytest.fixture
def start():
  """Starts a command in the repository without network: start("train.py", "--config=...", devices=1) -> Popen."""
  processes = []

  def run(*command, devices=1, **environment):
    env = os.environ | {
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}",
      "PYTHONPATH": os.pathsep.join([str(_TESTS / "nonetwork"), str(REPO)]),
      "PYTHONUNBUFFERED": "1",
      **environment,
    }
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen([sys.executable, *command], cwd=REPO, env=env, start_new_session=True, **pipes)
    processes.append(process)
    return process

  yield run
  for process in processes:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def command(start):
  """Runs a command to its end: command("train.py", ...) -> (exit code, output)."""

  def run(*arguments, **options):
    process = start(*arguments, **options)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output

  return run


@pytest.fixture
def here(capfd, monkeypatch):
  """Runs a command in this process, for what ends soon: here("train.py", ...) -> (exit code, output)."""
  import started

  monkeypatch.chdir(REPO)

  def run(*arguments):
    program, *rest = arguments[1:] if arguments[0] == "-m" else arguments
    code = started.here(program, rest)
    if isinstance(code, str):  # which Python prints at the end of a process
      return 1, code
    return code, "".join(capfd.readouterr())

  return run


@pytest.fixture
def small_config():
  """The config of SMALL, unlocked, for tests in this process."""
  from configs import quickstart

  config = quickstart.get_config()
  config.model.num_blocks, config.model.hidden_dim = 1, 16
  config.data.batch_size = 40
  config.optim.schedule.warmup = "5 steps"
  return config


@pytest.fixture(scope="session")
def scenes(data_dir):
  """The directory of digit_scenes, prepared with few scenes."""
  from mlpvision.data import prepared
  from mlpvision.prepare.builders import digit_scenes

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(digit_scenes, "_SCENES", {"train": 40, "test": 10})
    prepared.open_builder("digit_scenes", str(data_dir))
  return data_dir


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory):
  """A name for config.data.name: a small dataset of detection in COCO's format."""
  import detectors

  return detectors.write_rectangles(tmp_path_factory.mktemp("rectangles"))


@pytest.fixture(scope="session")
def detection_run(rectangles, tmp_path_factory):
  """(config, workdir, result) of a finished run of a tiny detector on two canvases."""
  import detectors

  from mlpvision.training import loop

  config = detectors.config(rectangles)
  workdir = tmp_path_factory.mktemp("detection") / "run"
  return config, workdir, loop.train_and_evaluate(config, workdir)


@pytest.fixture
def small_segmentation(scenes):
  """A config of segmentation, unlocked, small enough for a test."""
  from configs import quickstart_segmentation

  config = quickstart_segmentation.get_config()
  config.model.update(hidden_dim=8, depths=(1, 1, 1, 1), channels=8, auxiliary_channels=8)
  config.data.update(image_size=64, batch_size=8, workers=0)
  config.optim.schedule.warmup = "1 step"
  config.update(duration="4 steps", log_every="1 step")
  config.eval.update(every="4 steps", batch_size=5)
  config.checkpoint.every = "2 steps"
  return config
