"""The documentation site: python -m sphinx -W --keep-going docs site/html"""

import inspect
import pathlib
import re
import shutil
import sys

_DOCS = pathlib.Path(__file__).parent
_REPO = _DOCS.parent
sys.path.insert(0, str(_REPO))

from docs.tools import api_pages, docstrings, repository  # noqa: E402

# Every page below the front page. "notebooks" and "api" are filled when the site is built.
NAVIGATION = {
  "Guides": [
    "imagenet",
    "distributed",
    "recipes",
    "segmentation",
    "detection",
    "loading",
    "extending",
    "faq",
  ],
  "Models": ["models", "weights", "studies", "comparison"],
  "Notebooks": [f"notebooks/{path.stem}" for path in sorted((_REPO / "notebooks").glob("*.ipynb"))],
  "Reference": ["api/commands", "api/index", "performance", "reliability", "design"],
}
_BELOW = {"studies": sorted(f"studies/{path.stem}" for path in (_DOCS / "studies").glob("*.md"))}

project = "mlpvision"
version = release = re.search(r'__version__ = "(.+?)"', (_REPO / "mlpvision" / "__init__.py").read_text())[1]
author = copyright = "The mlpvision authors"
extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.linkcode",
  "sphinx_copybutton",
]
exclude_patterns = ["tools"]
default_role = "code"
smartquotes = False

myst_heading_anchors = 4
nb_execution_mode = "off"
copybutton_exclude = ".linenos, .gp, .go"

autodoc_default_options = {"members": True, "special-members": "__call__", "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = api_pages.missing_imports()
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "mlpvision"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
  "repository_url": repository.url(),
  "repository_branch": repository.BRANCH,
  "path_to_docs": "docs",
  "use_repository_button": True,
  "use_edit_page_button": True,
  "use_issues_button": True,
  "home_page_in_toc": True,
  "navbar_persistent": [],
  "max_navbar_depth": 2,
  "show_toc_level": 2,
}


def linkcode_resolve(domain: str, info: dict) -> str | None:
  """The lines of the repository that define a name."""
  found = sys.modules.get(info["module"])
  try:
    for part in info["fullname"].split("."):
      found = getattr(found, part)
    lines, start = inspect.getsourcelines(inspect.unwrap(found))
    path = pathlib.Path(inspect.getsourcefile(inspect.unwrap(found))).relative_to(_REPO)
  except (AttributeError, OSError, TypeError, ValueError):
    return None
  return f"{repository.url()}/blob/{repository.BRANCH}/{path}#L{start}-L{start + len(lines) - 1}"


def _fill(app):
  api_pages.write(_DOCS / "api")
  (_DOCS / "notebooks").mkdir(exist_ok=True)
  for path in (_REPO / "notebooks").glob("*.ipynb"):
    shutil.copy2(path, _DOCS / "notebooks")


def _navigate(app, docname, source):
  """Adds the navigation to the pages, which are read without it elsewhere."""
  groups = NAVIGATION if docname == "index" else {"": _BELOW[docname]} if docname in _BELOW else {}
  for caption, pages in groups.items():
    paths = "\n".join(f"/{page}" for page in pages)
    options = ":hidden:" + f"\n:caption: {caption}" * bool(caption)
    source[0] += f"\n\n```{{toctree}}\n{options}\n\n{paths}\n```\n"


def _translate(app, what, name, obj, options, lines):
  lines[:] = docstrings.to_rst(lines)


def _shorten(app, what, name, obj, options, signature, returns):
  """Without what linen adds to every module, and without addresses of functions."""
  if signature:
    signature = re.sub(r", parent: .*?, name: [^,)]*", "", signature)
    signature = re.sub(r"<(?:function|class) '?([\w.]+)'?(?: at 0x\w+)?>", r"\1", signature)
  return signature, returns


def _edit(app, page, template, context, doctree):
  """Pages that are made from other files are edited there."""
  folder, _, name = page.rpartition("/")
  if folder == "api":
    path = "mlpvision" if name in ("index", "commands") else name.replace(".", "/")
    kind = "tree"
  elif folder == "notebooks":
    path, kind = f"{page}.ipynb", "blob"
  else:
    return
  context["get_edit_provider_and_url"] = lambda: ("GitHub", f"{repository.url()}/{kind}/{repository.BRANCH}/{path}")


def setup(app) -> None:
  """Connects the functions above."""
  app.connect("builder-inited", _fill)
  app.connect("source-read", _navigate)
  app.connect("autodoc-process-docstring", _translate)
  app.connect("autodoc-process-signature", _shorten)
  app.connect("html-page-context", _edit, priority=501)  # after the theme, before its buttons
