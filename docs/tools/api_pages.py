"""The pages of the API reference, one per package, and the page of the commands. Made when the site is built."""

import ast
import importlib.util
import pathlib
import re
import runpy

_REPO = pathlib.Path(__file__).parent.parent.parent
_PACKAGE = "mlpvision"
# Can be run, and is a library too.
_BOTH = {"mlpvision.reporting.curves"}


def public_modules() -> list[str]:
  """The dotted names of all modules that a program may import: no commands, nothing with an underscore."""
  names = []
  for path in sorted((_REPO / _PACKAGE).rglob("*.py")):
    name = ".".join(path.relative_to(_REPO).with_suffix("").parts).removesuffix(".__init__")
    is_command = re.search(r"^if __name__ == ", path.read_text(), re.MULTILINE) and name not in _BOTH
    if not is_command and not any(part.startswith("_") for part in name.split(".")):
      names.append(name)
  return names


def packages() -> dict[str, list[str]]:
  """{package: its public modules, beginning with itself}; the page of a package has the modules that lie in it."""
  pages = {name: [name] for name in public_modules() if (_REPO / name.replace(".", "/")).is_dir()}
  for name in public_modules():
    if name not in pages:
      pages[name.rpartition(".")[0]].append(name)
  return pages


def missing_imports() -> list[str]:
  """The optional libraries that public modules import at their top and that are not installed."""
  roots = set()
  for name in public_modules():
    for node in _body(name):
      if isinstance(node, ast.Import):
        roots |= {alias.name.partition(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        roots.add(node.module.partition(".")[0])
  return sorted(root for root in roots if importlib.util.find_spec(root) is None)


def write(directory: pathlib.Path) -> None:
  """Writes the pages to docs/api. Those that have not changed keep their time, so that they are not built again."""
  directory.mkdir(exist_ok=True)
  pages = {f"{package}.rst": _page(package, modules) for package, modules in packages().items()}
  pages |= {"index.rst": _index(), "commands.rst": _commands()}
  for path in directory.glob("*.rst"):
    if path.name not in pages:
      path.unlink()
  for name, text in pages.items():
    path = directory / name
    if not path.exists() or path.read_text() != text:
      path.write_text(text)


def _body(module):
  path = _REPO / module.replace(".", "/")
  return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()).body


def _heading(text, line="="):
  return [text, line * len(text), ""]


def _page(package, modules):
  lines = _heading(package)
  for module in modules:
    lines += _heading(module.removeprefix(f"{package}."), "-") if module != package else []
    lines += [f".. automodule:: {module}", ""]
    # What these decorators return is no function, and not found without its name.
    for node in _body(module):
      if isinstance(node, ast.FunctionDef) and any("custom_" in ast.unparse(made) for made in node.decorator_list):
        lines += [f".. autofunction:: {module}.{node.name}", ""]
  return "\n".join(lines)


def _index():
  rows = []
  for package, modules in packages().items():
    inside = ", ".join(f":py:mod:`~{module}`" for module in modules[1:]) or "–"
    rows += [f"   * - :doc:`{package}`", f"     - {inside}"]
  return "\n".join([
    *_heading("API reference"),
    "Every public module, from its docstrings. Most programs need :py:func:`mlpvision.load`,",
    ":py:func:`mlpvision.models.create` and :py:func:`mlpvision.weights.load <mlpvision.weights.loading.load>`.",
    "",
    ".. list-table::", "   :header-rows: 1", "   :widths: 30 70", "", "   * - package", "     - modules", *rows, "",
    ".. toctree::", "   :hidden:", "", *(f"   {package}" for package in packages()), "",
  ])  # fmt: skip


def _commands():
  """The docstrings of the commands, which are what their --help begins with."""
  lines = [
    *_heading("Commands"),
    "``mlpvision COMMAND`` and ``python -m mlpvision.COMMAND`` are the same. ``--help`` lists a command's flags.",
    "",
  ]
  for name, (module, line) in runpy.run_path(str(_REPO / _PACKAGE / "__main__.py"))["COMMANDS"].items():
    path = _REPO / module.replace(".", "/")
    text = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    doc = ast.get_docstring(ast.parse(text)).splitlines()
    lines += [*_heading(f"mlpvision {name}", "-"), f"{line}.", "", ".. code-block:: text", ""]
    lines += [*(f"   {part}" if part else "" for part in doc), ""]
  return "\n".join(lines)
