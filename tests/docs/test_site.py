"""The documentation site: it builds without a warning, and contains and links everything."""

import ast
import functools
import html.parser
import os
import subprocess
import sys
import urllib.parse

from documented import REPO
import pytest
from test_layering import commands_of_the_package

from docs.tools import repository

pytest.importorskip("sphinx_book_theme", reason="needs the extra `docs`")


class _Page(html.parser.HTMLParser):
  """What a page links, loads and can be linked at."""

  def __init__(self, path):
    super().__init__()
    self.ids, self.links, self.loaded, self.title = set(), [], [], ""
    self.feed(path.read_text())

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.ids.add(attributes.get("id"))
    if tag == "a" and attributes.get("href"):
      self.links.append(attributes["href"])
    elif tag in ("img", "script") and attributes.get("src"):
      self.loaded.append(attributes["src"])
    elif tag == "link" and attributes.get("rel") in ("stylesheet", "preload", "modulepreload"):
      self.loaded.append(attributes["href"])


@pytest.mark.slow
def test_the_site(tmp_path):
  """One test, because every worker that runs one of several would build the site."""
  site = tmp_path / "html"  # the notebooks' extension writes beside it
  command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(site)]
  environment = {**os.environ, "PYTHONPATH": str(REPO / "tests" / "nonetwork")}
  done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  page = functools.cache(_Page)
  _everything_public_is_described(site, page)
  _every_page_is_in_the_navigation(site, page)
  _links_lead_somewhere(site, page)


def _everything_public_is_described(site, page):
  """Modules, and what has a docstring in them, by their own account and not by that of docs/tools/api_pages.py."""
  described = set().union(*(page(path).ids for path in (site / "api").glob("*.html")))
  commands = commands_of_the_package() - {"mlpvision.reporting.curves"}
  count = 0
  for path in (REPO / "mlpvision").rglob("*.py"):
    module = ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")
    if module in commands or any(part.startswith("_") for part in module.split(".")):
      continue
    assert f"module-{module}" in described, f"{module} is missing in the API reference"
    for node in ast.parse(path.read_text()).body:
      is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
      if is_public and ast.get_docstring(node):
        assert f"{module}.{node.name}" in described, f"{module}.{node.name} is missing in the API reference"
        count += 1
  assert count > 700
  assert page(site / "api" / "commands.html").ids >= {"mlpvision-train", "mlpvision-plan"}


def _every_page_is_in_the_navigation(site, page):
  linked = set(page(site / "index.html").links)
  sources = [*(REPO / "docs").glob("*.md"), *(REPO / "docs").glob("studies/*.md")]
  names = {str(path.relative_to(REPO / "docs").with_suffix(".html")) for path in sources} - {"index.html"}
  names |= {f"notebooks/{path.stem}.html" for path in (REPO / "notebooks").glob("*.ipynb")}
  assert len(names) > 20
  assert names <= linked, names - linked


def _links_lead_somewhere(site, page):
  """Internal ones to a file and a place in it; those to the repository to a file of it. Nothing is loaded from afar."""
  generated = {site / name for name in ("genindex.html", "search.html", "py-modindex.html")}
  ours = f"{repository.url()}/"
  for path in {path for path in site.rglob("*.html") if "_static" not in path.parts} - generated:
    assert not [loaded for loaded in page(path).loaded if "//" in loaded], path
    for link in [*page(path).links, *page(path).loaded]:
      target, _, anchor = urllib.parse.unquote(link).partition("#")
      kind, _, name = target.removeprefix(ours).partition(f"/{repository.BRANCH}/")
      if target.startswith(ours) and name:
        assert kind in ("blob", "tree", "edit"), link
        assert (REPO / name).exists(), f"{path.name}: {link}"
      elif not urllib.parse.urlparse(link).scheme:
        found = (path.parent / target.partition("?")[0]).resolve() if target else path
        assert found.exists(), f"{path.name}: {link}"
        if anchor and found.suffix == ".html" and found not in generated:
          assert anchor in page(found).ids, f"{path.name}: {link}"
