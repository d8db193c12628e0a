"""Real checkpoints: across meshes, alone, and damaged in every way a disk knows."""

import json
import os
import pathlib
import resource
import shutil
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlpvision import sharding
from mlpvision.checkpoints import Checkpoints, load_variables
from mlpvision.errors import UserError
from mlpvision.training import setup as setup_lib, step as step_lib

# TensorStore reports a damaged file once more when its reader is thrown away.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_META = {"config": {"a": 1}, "class_names": ["x"]}


@pytest.fixture
def run(small_config, tmp_path):
  """(config, workdir) of a run with a moving average and leaves that FSDP cuts."""
  small_config.model.hidden_dim = 256
  small_config.ema_decay = 0.9
  return small_config, tmp_path


_MADE = {}  # what several tests need: set-ups, states and a directory with checkpoints


def _setup(config):
  key = config.to_json()
  if key not in _MADE:
    _MADE[key] = setup_lib.set_up(config)
  return _MADE[key]


def _state(config, offset=0):
  """(a state, its shapes and shardings)."""
  setup, key = _setup(config), (config.to_json(), offset)
  if key not in _MADE:
    state = _state(config)[0] if offset else step_lib.create_state(setup.init, setup.abstract, config.seed)
    moved = _MADE.setdefault("add", jax.jit(_add))(state, offset)
    _MADE[key] = jax.device_put(moved, jax.tree.map(lambda x: x.sharding, setup.abstract))
  return _MADE[key], setup.abstract


def _add(state, offset):
  return jax.tree.map(lambda x: x + jnp.asarray(offset, x.dtype), state)


def _save(workdir, config, steps=(3, 6)):
  """Checkpoints of some steps in workdir; returns their states. They are written once, and copied."""
  states = {step: _state(config, offset=step)[0] for step in steps}
  key = (config.to_json(), steps)
  if key in _MADE:
    shutil.copytree(_MADE[key].name, workdir, dirs_exist_ok=True)
    return states
  checkpoints = Checkpoints(workdir, keep=3)
  for step, state in states.items():
    checkpoints.save(step, state, _META)
  checkpoints.close()
  _MADE[key] = tempfile.TemporaryDirectory()
  shutil.copytree(workdir, _MADE[key].name, dirs_exist_ok=True)
  return states


def _numbers(step):
  """A state of a few numbers, for what does not depend on the state."""
  params = {"a": jnp.full((4, 3), step, jnp.float32), "b": jnp.arange(3.0) + step}
  return step_lib.TrainState(jnp.asarray(step, jnp.int32), params, None, ({"m": jnp.ones(3) * step},))


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
  "mesh", [dict(fsdp=1, data=-1), dict(fsdp=8, data=1), dict(fsdp=2, data=4), dict(data=2, fsdp=2, model=2)]
)
def test_a_state_returns_bit_for_bit_on_any_mesh(run, mesh):
  config, workdir = run
  states = _save(workdir, config)
  config.mesh.update(mesh)
  _, abstract = _state(config)
  restored, meta = Checkpoints(workdir, keep=3).restore(abstract)
  assert meta["class_names"] == ["x"]
  _equal(restored, states[6])
  kernel = restored.params["block_0"]["channel_mixing"]["Dense_0"]["kernel"]
  assert kernel.addressable_shards[0].data.size * len(jax.devices()) == kernel.size


def test_saved_on_any_number_of_devices_restored_on_any_other(run):
  config, workdir = run
  setup = _setup(config)
  meshes = {n: sharding.make_mesh(fsdp=n, devices=jax.devices()[:n]) for n in (1, 4, 8)}
  abstract = {n: step_lib.abstract_state(setup.init, mesh) for n, mesh in meshes.items()}
  for saved, targets in abstract.items():
    state = step_lib.create_state(setup.init, targets, seed=saved)
    checkpoints = Checkpoints(workdir / str(saved), keep=1)
    checkpoints.save(1, state, _META)
    checkpoints.wait()
    for number, other in abstract.items():
      restored, _ = checkpoints.restore(other)
      _equal(restored, state)
      kernel = restored.params["block_0"]["channel_mixing"]["Dense_0"]["kernel"]
      assert len(kernel.sharding.device_set) == number
    checkpoints.close()


@pytest.mark.parametrize(("metric", "direction", "best"), [("val/top1", "max", 4), ("calibration/ece", "min", 2)])
def test_the_best_checkpoint_stays_beside_the_newest(tmp_path, metric, direction, best):
  workdir, state = tmp_path, _numbers(0)
  scores = {2: 0.1, 4: 0.9, 6: 0.5, 8: None, 10: 0.7, 11: None}
  for steps in ((2, 4, 6), (8, 10, 11)):  # in two sittings
    checkpoints = Checkpoints(workdir, 1, metric, direction)
    for step in steps:
      checkpoints.save(step, state, _META, scores[step] and {metric: scores[step], "val/other": 1.0})
    checkpoints.wait()
    assert checkpoints.best_step() == (best, scores[best])
    checkpoints.close()
  assert {int(path.name) for path in (workdir / "checkpoints").iterdir()} == {best, 11}
  assert load_variables(workdir / "checkpoints" / str(best))[2] == best


def _save_and_check(checkpoints, state):
  checkpoints.save(6, state, _META)
  for _ in range(1000):  # what follows save in a run: a check at each step, and nothing that waits
    checkpoints.check_for_errors()
    time.sleep(0.01)


def test_a_save_that_fails_is_named_at_the_next_step_with_what_is_left(run):
  """A limit on the size of files stands for a disk that is full."""
  config, workdir = run
  states = _save(workdir, config, steps=(3,))
  checkpoints = Checkpoints(workdir, keep=3)
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
  try:
    with pytest.raises(UserError, match=r"(?s)could not be written to .*The newest complete checkpoint is of step 3\."):
      _save_and_check(checkpoints, states[3])
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  _equal(load_variables(workdir)[0]["params"], states[3].params)


def test_weights_load_without_the_optimizer(run):
  config, workdir = run
  config.mesh.update(dict(fsdp=8, data=1))
  states = _save(workdir, config)
  for source, step in ((workdir, 6), (workdir / "checkpoints" / "3", 3)):
    variables, meta, found = load_variables(source)
    assert found == step
    assert meta["class_names"] == ["x"]
    _equal(variables["params"], states[step].params)
    assert all(len(x.devices()) == 1 for x in jax.tree.leaves(variables))
    _equal(load_variables(source, ema=True)[0]["params"], states[step].ema)


def test_only_the_newest_stay(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=3)
  for step in (1, 2, 3, 4, 5):
    checkpoints.save(step, _numbers(step), _META)
  checkpoints.close()
  assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [3, 4, 5]


def _files(checkpoint):
  return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def _data_file(checkpoint):
  return max(_files(checkpoint / "params"), key=lambda path: path.stat().st_size)


def _truncate(checkpoint):
  path = _data_file(checkpoint)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite(checkpoint):
  path = _data_file(checkpoint)
  path.write_bytes(bytes(path.stat().st_size))


def _flip_bits(checkpoint):
  """Three, far apart: how the file is laid out depends on timing, and a replaced node of its index counts not."""
  path = _data_file(checkpoint)
  data = bytearray(path.read_bytes())
  for quarter in (1, 2, 3):
    data[len(data) * quarter // 4] ^= 4
  path.write_bytes(data)


def _remove(checkpoint):
  _data_file(checkpoint).unlink()


def _garble_meta(checkpoint):
  (checkpoint / "meta" / "metadata").write_text("{")


def _empty(checkpoint):
  for path in _files(checkpoint):
    path.write_bytes(b"")


_DAMAGES = [_truncate, _overwrite, _flip_bits, _remove, _garble_meta, _empty]


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(run, damage, caplog):
  config, workdir = run
  states = _save(workdir, config)
  damage(workdir / "checkpoints" / "6")
  variables, _, step = load_variables(workdir)
  assert step == 3
  _equal(variables["params"], states[3].params)

  _, abstract = _state(config)
  checkpoints = Checkpoints(workdir, keep=3)
  _equal(checkpoints.restore(abstract)[0], states[3])
  assert f"{workdir}/checkpoints/6 IS DAMAGED" in caplog.text
  assert (workdir / "checkpoints-damaged" / "6").is_dir()
  checkpoints.save(6, states[6], _META)  # its place is free again
  checkpoints.close()
  _equal(load_variables(workdir)[0]["params"], states[6].params)


def test_all_damaged_is_an_error_that_says_so(run):
  config, workdir = run
  _save(workdir, config)
  for step in ("3", "6"):
    _truncate(workdir / "checkpoints" / step)
  with pytest.raises(UserError, match="no intact checkpoint"):
    load_variables(workdir)
  _, abstract = _state(config)
  with pytest.raises(UserError, match="all checkpoints .* are damaged"):
    Checkpoints(workdir, keep=3).restore(abstract)


def test_nothing_there(run, tmp_path):
  config, workdir = run
  _, abstract = _state(config)
  assert Checkpoints(workdir, keep=3).restore(abstract) == (None, None)
  for source in (tmp_path / "nowhere", pathlib.Path(__file__)):
    with pytest.raises(UserError, match=f"no checkpoint in {source}"):
      load_variables(source)


@pytest.fixture
def tiny(tmp_path):
  """(workdir with checkpoints 3 and 6 of a state of a few numbers, what `restore` needs to read it)."""
  state = _numbers
  if "tiny" not in _MADE:
    _MADE["tiny"] = tempfile.TemporaryDirectory()
    checkpoints = Checkpoints(_MADE["tiny"].name, 3, "val/top1")
    for step in (3, 6):
      checkpoints.save(step, state(step), _FULL_META, {"val/top1": 0.1 * step})
    checkpoints.close()
  shutil.copytree(_MADE["tiny"].name, tmp_path / "run")
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))
  return tmp_path / "run", abstract, state


_FULL_META = {"config": {"a": 0.1}, "class_names": ["x", "y"], "from_weights": {}, "pending": [{"loss": 1.5}]}


def _is_as_saved_or_the_step_before(tiny, caplog):
  """The step that is used, by a run that goes on and by one that only reads."""
  workdir, abstract, state = tiny
  caplog.clear()
  variables, meta, step = load_variables(workdir)
  checkpoints = Checkpoints(workdir, 3, "val/top1")
  for found in (meta, checkpoints.read_meta(), (restored := checkpoints.restore(abstract))[1]):
    assert {key: found[key] for key in _FULL_META} == _FULL_META
  _equal(variables["params"], state(step).params)
  resumed = int(restored[0].step)
  _equal(restored[0], state(resumed))
  assert checkpoints.best_step()[0] == resumed
  if 3 in (step, resumed):
    assert f"{workdir}/checkpoints/6 IS " in caplog.text
  checkpoints.close()
  return step, resumed


def _flip(data):
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


_FILE_DAMAGES = {
  "empty": lambda path: path.write_bytes(b""),
  "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  "flipped": lambda path: path.write_bytes(_flip(path.read_bytes())),
  "deleted": pathlib.Path.unlink,
}


@pytest.mark.parametrize("damage", _FILE_DAMAGES)
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "metrics/metrics", "meta/metadata", "params/_METADATA"])
def test_a_small_file_is_verified_or_not_needed(tiny, caplog, damage, name):
  _FILE_DAMAGES[damage](tiny[0] / "checkpoints" / "6" / name)
  step, resumed = _is_as_saved_or_the_step_before(tiny, caplog)
  if name in ("_CHECKPOINT_METADATA", "metrics/metrics"):
    assert (step, resumed) == (6, 6)
  if name == "meta/metadata":
    assert (step, resumed) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("damage", _FILE_DAMAGES)
def test_every_file_is_verified_or_not_needed(tiny, caplog, damage):
  workdir = tiny[0]
  original = workdir.with_name("original")
  shutil.copytree(workdir, original)
  for path in _files(workdir / "checkpoints" / "6"):
    shutil.rmtree(workdir)
    shutil.copytree(original, workdir)
    _FILE_DAMAGES[damage](path)
    _is_as_saved_or_the_step_before(tiny, caplog)


@pytest.mark.parametrize(
  ("before", "after"), [('"a": 0.1', '"a": 0.2'), ('"loss": 1.5', '"loss": 1.6'), ('"x"', '"z"')]
)
def test_a_changed_byte_of_meta_is_damage(tiny, caplog, before, after):
  path = tiny[0] / "checkpoints" / "6" / "meta" / "metadata"
  text = path.read_text()
  assert before in text
  path.write_text(text.replace(before, after))
  assert _is_as_saved_or_the_step_before(tiny, caplog) == (3, 3)


def test_a_copy_under_another_number_is_damage(tiny, caplog):
  workdir, _, _ = tiny
  shutil.copytree(workdir / "checkpoints" / "3", workdir / "checkpoints" / "9")
  assert _is_as_saved_or_the_step_before(tiny, caplog) == (6, 6)
  assert f"{workdir}/checkpoints/9 IS DAMAGED" in caplog.text


def test_meta_of_earlier_versions_has_no_checksum(tiny, caplog):
  path = tiny[0] / "checkpoints" / "6" / "meta" / "metadata"
  meta = json.loads(path.read_text())
  del meta["checksums"]["meta"], meta["step"], meta["metrics"]
  path.write_text(json.dumps(meta))
  assert _is_as_saved_or_the_step_before(tiny, caplog) == (6, 6)  # its metric is in orbax's file


def test_what_is_no_checkpoint_is_ignored_and_makes_room(tiny, caplog):
  workdir, _, state = tiny
  folder = workdir / "checkpoints"
  (folder / "7").write_text("a file")
  (folder / "8").symlink_to("6")
  (folder / "10").symlink_to("nowhere")
  os.mkfifo(folder / "11")
  names = ("²", "٣", "1٣", "tmp", "-3", "007", " 9", "9\n", "9 copy", "step_9", "1e3", os.fsdecode(b"\xff9"))
  for name in names:
    shutil.copytree(folder / "3", folder / name)
  (folder / "12").mkdir()
  shutil.copytree(folder / "6" / "meta", folder / "13" / "meta")
  assert _is_as_saved_or_the_step_before(tiny, caplog) == (6, 6)
  for step in (7, 8, 10, 11):
    assert f"{folder}/{step} IS NO CHECKPOINT" in caplog.text
  for step in (12, 13):
    assert f"{folder}/{step} IS DAMAGED" in caplog.text
  checkpoints = Checkpoints(workdir, 3, "val/top1")
  for step in (7, 8, 10, 11):
    checkpoints.save(step, state(step), _FULL_META)
  checkpoints.close()
  assert {path.name for path in folder.iterdir()} == {"6", "8", "10", "11", *names}  # the best and the newest
  assert (workdir / "checkpoints-damaged" / "8").is_symlink()
  assert load_variables(workdir)[2] == 11


def test_a_folder_that_is_a_file_is_named(tmp_path):
  (tmp_path / "checkpoints").write_text("")
  with pytest.raises(UserError, match=f"cannot use {tmp_path}/checkpoints"):
    Checkpoints(tmp_path, keep=3)
