"""Who may import whom: read from the source, so that a forbidden import fails even where it never runs."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

_REPO = pathlib.Path(__file__).parent.parent
_HEAVY = {"tensorflow", "tensorflow_datasets", "clu", "orbax", "grain"}
_TREES = {"jax", "flax", "optax"}
_PARTS = ("data", "errors", "models", "sharding")

# What the repository has beside the package.
_BESIDE = {"benchmarks", "configs", "docs", "studies", "train"}
# Room -> (what of this project it may import beside itself, and what of others it must not import). A module belongs to
# the row with the longest name that is its own or a package's above it. Names without a dot are in mlpvision.
_ROOMS = {
  "train": ("", _HEAVY | _TREES),
  "configs": ("", _HEAVY | _TREES | {"numpy"}),
  "studies": ("config docs errors models reporting sharding training configs commands", _HEAVY),
  "benchmarks": (
    "augment benchmark commands errors models plan tasks weights training.setup",
    {"clu", "orbax", "grain"},
  ),
  "docs": ("errors models plan weights.shapes", _HEAVY),
  # The whole package: what a user of the library imports.
  "mlpvision": ("models trained weights", _HEAVY | _TREES),
  "errors": ("", _HEAVY | _TREES),
  "heartbeat": ("", _HEAVY | _TREES),
  "__main__": ("", _HEAVY | _TREES | {"absl", "ml_collections"}),
  "commands": ("command_help errors named_configs streams", _HEAVY | _TREES),
  "command_help": ("named_configs", _HEAVY | _TREES),
  "named_configs": ("", _HEAVY | _TREES),
  "streams": ("", _HEAVY | _TREES),
  "zips": ("", _HEAVY | _TREES),
  "durations": ("errors", _HEAVY | _TREES),
  "config_values": ("durations", _HEAVY | _TREES),
  "config_fields": ("config_values data durations", {"jax", "flax", "optax", "orbax"}),
  "config": ("config_fields data errors", {"jax", "flax", "optax", "orbax"}),
  "preprocessing": ("", _HEAVY | _TREES),
  # What a run is made of, from the bottom up.
  "augment": ("", _HEAVY | {"flax", "optax"}),
  "models": ("", _HEAVY | {"numpy", "optax", "ml_collections"}),
  "weights": ("models errors preprocessing zips", _HEAVY | {"torch", "pickle.loads"}),
  "sharding": ("models errors", _HEAVY | {"optax"}),
  "workdir": ("errors", _HEAVY | {"flax", "optax"}),
  "checkpoint_meta": ("workdir", _HEAVY | _TREES),
  "checkpoint_items": ("checkpoint_meta workdir", _HEAVY - {"orbax"}),
  "checkpoints": ("checkpoint_items checkpoint_meta errors workdir", _HEAVY - {"orbax"}),
  "data": ("errors prepare", _TREES | {"clu", "orbax", "tensorflow"}),
  "prepare": ("data errors zips", _TREES | {"clu", "orbax", "grain"}),
  "tasks": ("augment data errors models", _HEAVY),
  "trained": (
    "augment checkpoints preprocessing tasks weights " + " ".join(_PARTS),
    {"tensorflow", "clu", "grain"},
  ),
  "reporting": ("reporting models.cost workdir", {"tensorflow", "tensorflow_datasets", "orbax", "grain"}),
  # Training.
  "mlpvision.train": ("config durations sharding training", _HEAVY | _TREES),
  "training.optim": ("errors", _HEAVY),
  "training.lr_multipliers": ("errors models training.optim", _HEAVY),
  "training.sam": ("training.lr_multipliers", _HEAVY),
  "training.step": ("augment models sharding tasks training.sam", _HEAVY),
  "training.distill": ("preprocessing tasks trained training.step " + " ".join(_PARTS), _HEAVY),
  "training.setup": (
    "durations evaluate tasks trained training " + " ".join(_PARTS),
    {"tensorflow", "tensorflow_datasets", "clu", "orbax"},
  ),
  "training": (
    "augment checkpoints config durations evaluate fewshot heartbeat reporting tasks trained training weights workdir "
    + " ".join(_PARTS),
    {"tensorflow", "tensorflow_datasets", "clu", "orbax", "grain"},
  ),
  # What is done with a trained model.
  "evaluate": (
    "augment config fewshot heartbeat preprocessing reporting.confusion reporting.tables tasks trained "
    + " ".join(_PARTS),
    _HEAVY,
  ),
  "fewshot": ("augment evaluate tasks trained " + " ".join(_PARTS), _HEAVY),
  "export": ("augment data.imagenet models preprocessing reporting.metrics tasks trained weights", _HEAVY),
  "average": ("export preprocessing trained weights.loading", _HEAVY | {"optax"}),
  "predict": ("data predict reporting tasks trained", _HEAVY),
  "demo": ("augment data draw reporting tasks trained", _HEAVY),
  "draw": ("evaluate tasks trained training.setup reporting " + " ".join(_PARTS), _HEAVY),
  # What is known or measured of a run.
  "preview": ("config training.pictures " + " ".join(_PARTS), _HEAVY),
  "cost": ("config models tasks training.setup", _HEAVY),
  "plan": ("config models.cost prepare.archives tasks training.setup data errors", _HEAVY | {"optax", "libtpu"}),
  "benchmark": (
    "augment commands config plan.chips prepare.archives tasks weights training.setup training.step "
    + " ".join(_PARTS),
    {"clu", "flax", "orbax", "optax"},
  ),
}
# What may import each other, and why.
_CYCLES = {
  frozenset({"data", "prepare"}): "a dataset that is not prepared is named with its archives, or prepares itself",
  frozenset({"evaluate", "fewshot"}): "few-shot is one of the evaluators, and reads a split as they do",
  frozenset({"training", "training.setup"}): "warm starts adapt a run's setup, and the setup reads them",
}
# Libraries that can also be run.
_BOTH = {"mlpvision.reporting.curves"}
# One exception to the rules for others: the builders are datasets of tfds.
_TFDS = re.compile(r"mlpvision\.(prepare\.|plan\.images|data\.datasets)")


@functools.cache
def _modules():
  """{dotted name: (its imports, as dotted as they are written, whether it can be run)}."""
  folders = ("configs/*.py", "mlpvision/**/*.py", "studies/*.py", "benchmarks/*.py", "docs/**/*.py", "train.py")
  found = {}
  for path in (path for folder in folders for path in _REPO.glob(folder)):
    name = ".".join(path.relative_to(_REPO).with_suffix("").parts).removesuffix(".__init__")
    text, imports = path.read_text(), set()
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Import):
        imports |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"{name}: relative import"
        imports |= {f"{node.module}.{alias.name}" for alias in node.names}
    found[name] = (imports, 'if __name__ == "__main__":' in text)
  return found


def _within(name, packages):
  return any(name == package or name.startswith(f"{package}.") for package in packages)


def _full(name):
  return name if name in _BESIDE | {"mlpvision", "mlpvision.train"} else f"mlpvision.{name}"


def _room(module):
  """The row of a module, or None; the row "mlpvision" has the package's own file alone."""
  rows = [room for room in _ROOMS if _within(module, {_full(room)}) and (room != "mlpvision" or module == room)]
  return max(rows, key=len, default=None)


def _owner(imported):
  """The module of this project that an imported name is, or is of; None for other projects'."""
  while imported not in _modules():
    imported, dot, _ = imported.rpartition(".")
    if not dot:
      return None
  return imported


def _edges():
  """[(module, module of this project that it imports), ...]."""
  pairs = ((name, _owner(imported)) for name, (imports, _) in _modules().items() for imported in imports)
  return [(name, owner) for name, owner in pairs if owner not in (None, name, "mlpvision")]


def test_every_module_has_a_row():
  assert {_room(name) for name in _modules()} == set(_ROOMS)


@pytest.mark.parametrize("room", _ROOMS)
def test_a_room_imports_what_its_row_says(room):
  allowed, forbidden = _ROOMS[room]
  allowed = {_full(name) for name in (room, *allowed.split())}
  if room != "models":  # which raise ValueError
    allowed.add("mlpvision.errors")
  for name, (imports, is_command) in _modules().items():
    if _room(name) == room:
      commands = {"mlpvision.commands", "mlpvision.config"} if is_command else set()
      for imported in imports:
        is_tfds = _TFDS.match(name) and _within(imported, {"tensorflow_datasets"})
        assert is_tfds or not _within(imported, forbidden), f"{name} imports {imported}"
        if _owner(imported) not in (None, "mlpvision") or (imported == "mlpvision" and room != "mlpvision"):
          assert _within(_owner(imported), allowed | commands), f"{name} imports {imported}"


def commands_of_the_package():
  """The modules of the package that can be run, but for the one that runs the others."""
  commands = {name for name, (_, is_command) in _modules().items() if is_command and name.startswith("mlpvision.")}
  return commands - {"mlpvision.__main__"}


def test_nothing_imports_a_command():
  commands = {name for name, (_, is_command) in _modules().items() if is_command} - _BOTH
  assert {"train", "mlpvision.train", "mlpvision.plan.__main__", "mlpvision.preview", "studies.__main__"} < commands
  assert [pair for pair in _edges() if pair[1] in commands] == []


def test_the_package_imports_nothing_beside_it():
  """`commands.of_repository` does, in the repository, and says so elsewhere."""
  for name, (imports, _) in _modules().items():
    assert not name.startswith("mlpvision") or not any(_within(imported, _BESIDE) for imported in imports), name


def test_rooms_that_import_each_other_have_a_reason():
  reach = {room: {room} for room in _ROOMS}
  direct = {(_room(a), _room(b)) for a, b in _edges()}
  for _ in _ROOMS:
    for a, b in direct:
      reach[a] |= reach[b]
  circles = {frozenset(b for b in reach[a] if a in reach[b]) for a in _ROOMS}
  assert {circle for circle in circles if len(circle) > 1} == set(_CYCLES)


def test_only_checkpoints_import_orbax():
  users = {name for name, (imports, _) in _modules().items() if any(_within(x, {"orbax"}) for x in imports)}
  assert users == {"mlpvision.checkpoints", "mlpvision.checkpoint_items"}


def test_only_the_hub_imports_its_library():
  users = {name for name, (imports, _) in _modules().items() if any(_within(x, {"huggingface_hub"}) for x in imports)}
  assert users == {"mlpvision.weights.hub"}


def test_models_and_data_start_no_tensorflow():
  code = "import sys, mlpvision.models, mlpvision.data.loader; sys.exit('tensorflow' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=_REPO, check=False).returncode == 0
