"""The project's address, `project.urls.Repository` in pyproject.toml, and the links that contain it.

A fork changes that line and runs `python -m docs.tools.fork`, which writes the address everywhere else.
"""

import pathlib
import re
import tomllib

_REPO = pathlib.Path(__file__).parent.parent.parent
_COLAB = "https://colab.research.google.com/github/"
BRANCH = "main"


def url() -> str:
  """Such as "https://github.com/OWNER/NAME"."""
  return tomllib.loads((_REPO / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def colab(notebook: str) -> str:
  """The address that opens a notebook of the repository in Colab."""
  return f"{_COLAB}{_owner_and_name(url())}/blob/{BRANCH}/notebooks/{notebook}.ipynb"


def files() -> list[pathlib.Path]:
  """The files that contain the address."""
  return [_REPO / "pyproject.toml", _REPO / "CITATION.cff", *sorted((_REPO / "notebooks").glob("*.ipynb"))]


def cited() -> str:
  """The address in CITATION.cff, which in a fork is the old one until it is replaced."""
  return re.search(r'^repository-code: "([^"]+)"', (_REPO / "CITATION.cff").read_text(), re.MULTILINE)[1]


def rewrite(text: str, old: str, new: str) -> str:
  """`text` with one address in place of the other, also in links to Colab."""
  text = re.sub(rf"{re.escape(old)}(?![\w-])", new, text)
  before, after = _COLAB + _owner_and_name(old), _COLAB + _owner_and_name(new)
  return re.sub(rf"{re.escape(before)}(?![\w-])", after, text)


def _owner_and_name(address):
  return "/".join(address.split("/")[-2:])
