"""Who may import whom: read from the source, so that a forbidden import fails even where it never runs."""

import ast
import pathlib
import subprocess
import sys

import pytest

_REPO = pathlib.Path(__file__).parent.parent
_COMMANDS = {
  "mlpvision.benchmark",
  "mlpvision.cost",
  "mlpvision.draw",
  "mlpvision.evaluate",
  "mlpvision.fewshot",
  "mlpvision.export",
  "mlpvision.plan",
  "mlpvision.predict",
  "mlpvision.prepare",
  "mlpvision.preview",
  "studies",
}
_HEAVY = {"tensorflow", "tensorflow_datasets", "clu", "orbax", "grain"}
_NONE = set()
# Package prefix -> the parts of mlpvision it may import, and what it must not import from outside.
_RULES = {
  "configs": (_NONE, _HEAVY | {"jax", "flax", "numpy", "optax"}),
  "mlpvision.models": ({"mlpvision.models"}, _HEAVY | {"numpy", "optax", "ml_collections"}),
  "mlpvision.weights": (
    {"mlpvision.weights", "mlpvision.models", "mlpvision.errors"},
    _HEAVY | {"torch", "pickle.loads"},
  ),
  "mlpvision.data": ({"mlpvision.data", "mlpvision.errors"}, {"jax", "flax", "optax", "clu", "orbax", "tensorflow"}),
  "mlpvision.benchmark": (
    {
      *(
        f"mlpvision.{name}"
        for name in ("augment", "benchmarking", "data", "errors", "host_memory", "models", "sharding", "weights")
      ),
      *(f"mlpvision.training.{name}" for name in ("setup", "state")),
      "mlpvision.plan.chips",
    },
    {"clu", "flax", "orbax", "optax"},
  ),
  "mlpvision.plan": (
    {
      "mlpvision.plan",
      "mlpvision.training.setup",
      "mlpvision.models.cost",
      "mlpvision.data",
      "mlpvision.errors",
    },
    {"tensorflow", "clu", "orbax", "grain", "optax", "libtpu"},
  ),
  "mlpvision.errors": (_NONE, _HEAVY | {"jax"}),
  "mlpvision.augment": (_NONE, _HEAVY | {"flax", "optax"}),
  "mlpvision.sharding": ({"mlpvision.errors"}, _HEAVY | {"flax", "optax"}),
  "mlpvision.checkpoints": ({"mlpvision.errors"}, _HEAVY - {"orbax"}),
  "mlpvision.reporting": ({"mlpvision.reporting"}, {"tensorflow", "orbax", "grain", "tensorflow_datasets"}),
  "mlpvision.training.losses": (_NONE, _HEAVY),
  "mlpvision.training.optim": ({"mlpvision.errors"}, _HEAVY),
  "mlpvision.training.rates": ({"mlpvision.errors", "mlpvision.models"}, _HEAVY),
  "mlpvision.training.state": ({"mlpvision.models", "mlpvision.sharding"}, _HEAVY),
  "mlpvision.training.step": ({"mlpvision.augment", "mlpvision.models.layers", "mlpvision.training.losses"}, _HEAVY),
}


def _modules():
  """{dotted name: names of all modules it imports, as dotted as they are written}."""
  found = {}
  for path in (*_REPO.glob("configs/*.py"), *_REPO.glob("mlpvision/**/*.py"), _REPO / "train.py"):
    name = ".".join(path.relative_to(_REPO).with_suffix("").parts).removesuffix(".__init__")
    imports = set()
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        imports |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"{name}: relative import"
        imports |= {f"{node.module}.{alias.name}" for alias in node.names}
    found[name] = imports
  return found


def _within(name, packages):
  return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("prefix", _RULES)
def test_rule(prefix):
  allowed, forbidden = _RULES[prefix]
  members = {name: imports for name, imports in _modules().items() if _within(name, {prefix})}
  assert members, f"no module {prefix}: the rule is stale"
  for name, imports in members.items():
    for imported in imports:
      assert not _within(imported, forbidden), f"{name} imports {imported}"
      if _within(imported, {"mlpvision", "train"}):
        assert _within(imported, allowed), f"{name} imports {imported}"


def test_nothing_imports_a_command():
  for name, imports in _modules().items():
    for imported in imports:
      assert not _within(imported, _COMMANDS | {"train"}), f"{name} imports {imported}"


def test_only_checkpoints_imports_orbax():
  assert {name for name, imports in _modules().items() if _within_any(imports, "orbax")} == {"mlpvision.checkpoints"}


def _within_any(imports, package):
  return any(_within(imported, {package}) for imported in imports)


def test_models_and_data_start_no_tensorflow():
  code = "import sys, mlpvision.models, mlpvision.data.loader; sys.exit('tensorflow' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=_REPO, check=False).returncode == 0
