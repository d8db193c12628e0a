"""Every public function and method says what it takes and gives; read from the source, so that none is forgotten."""

import ast
import pathlib

import pytest

_REPO = pathlib.Path(__file__).parent.parent


def _is_public(name):
  return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _functions(body, prefix=""):
  """(qualified name, its node, whether it has a self) of what a module or a public class defines, branches included."""
  for node in body:
    if isinstance(node, ast.ClassDef) and _is_public(node.name):
      yield from _functions(node.body, f"{node.name}.")
    elif isinstance(node, ast.If | ast.Try | ast.With):
      yield from _functions(node.body, prefix)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(node.name):
      is_static = any(isinstance(found, ast.Name) and found.id == "staticmethod" for found in node.decorator_list)
      yield prefix + node.name, node, bool(prefix) and not is_static


def _missing(node, has_self):
  arguments = node.args
  parameters = [*arguments.posonlyargs, *arguments.args][has_self:]
  parameters += [arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
  missing = [parameter.arg for parameter in parameters if parameter and parameter.annotation is None]
  return missing if node.returns else [*missing, "return"]


@pytest.mark.parametrize(
  ("source", "expected"),
  [
    ("def f(a: int, *b, c=1, **d): pass", {"f": ["b", "c", "d", "return"]}),
    ("def f(a: int, *b: int, c: int = 1, **d: int) -> None: pass", {}),
    ("class A:\n  def __init__(self): pass", {"A.__init__": ["return"]}),
    ("class A:\n  @staticmethod\n  def f(a) -> int: pass", {"A.f": ["a"]}),
    ("def _f(a): pass\nclass _A:\n  def f(self): pass", {}),
  ],
)  # fmt: skip
def test_the_search(source, expected):
  found = {name: _missing(node, has_self) for name, node, has_self in _functions(ast.parse(source).body)}
  assert {name: missing for name, missing in found.items() if missing} == expected


def test_the_public_surface_is_annotated():
  problems, count = [], 0
  for path in sorted(_REPO.glob("mlpvision/**/*.py")):
    for name, node, has_self in _functions(ast.parse(path.read_text()).body):
      count += 1
      if missing := _missing(node, has_self):
        problems.append(f"{path.relative_to(_REPO)}:{node.lineno} {name}: {', '.join(missing)}")
  assert count > 300
  assert not problems, "\n".join(problems)


def test_type_checkers_are_told():
  assert (_REPO / "mlpvision" / "py.typed").exists()
