"""The configs that come with the package: found by name, as in --config=quickstart, and importable as `configs`."""

import importlib
import os
import pathlib
import sys
import types

_PACKAGE = pathlib.Path(__file__).parent
# In the wheel, or in the repository.
_DIRECTORY = next(path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir())
_NO_RECIPES = ("default", "recipes")


def names() -> list[str]:
  """Names for --config, sorted."""
  return sorted(path.stem for path in _DIRECTORY.glob("*.py") if path.stem not in _NO_RECIPES)


def defaults() -> pathlib.Path:
  """The file that explains every field."""
  return _DIRECTORY / "default.py"


def resolve(value: str) -> str:
  """The file of a config for ml_collections, from the value of --config, and makes the package `configs` importable.

  value: "NAME" of the package's own or "FILE.py", both with an optional argument after a colon. A value that is no name
    is returned as it is.
  """
  name, colon, argument = value.partition(":")
  is_named = name in (*names(), *_NO_RECIPES) and not os.path.isfile(name)
  _make_importable(first=is_named)
  return f"{_DIRECTORY / name}.py{colon}{argument}" if is_named else value


def _make_importable(first):
  """Configs import each other as `configs`, in a directory that Python need not know.

  A user's own directory `configs` is searched as well; unless `first`, before the package's.
  """
  try:
    package = importlib.import_module("configs")
  except ModuleNotFoundError:
    package = sys.modules["configs"] = types.ModuleType("configs")
  ours, others = str(_DIRECTORY), [path for path in getattr(package, "__path__", ()) if path != str(_DIRECTORY)]
  package.__path__ = [ours, *others] if first else [*others, ours]
