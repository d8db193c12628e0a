"""The project's address, which one line has and all links agree with; and the versions that were tested."""

import re
import subprocess
import tomllib

from documented import REPO
import nbformat
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.tools import repository


def test_links_to_the_repository_agree():
  urls = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["urls"]
  assert {"Homepage", "Repository", "Documentation", "Changelog", "Issues"} <= set(urls)
  assert all(url.startswith(repository.url()) for url in urls.values())
  for name in ("Documentation", "Changelog"):
    assert (REPO / urls[name].removeprefix(f"{repository.url()}/blob/{repository.BRANCH}/")).exists()
  assert repository.cited() == repository.url()


def test_only_files_that_a_fork_rewrites_have_the_address():
  files = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
  owner_and_name = repository.url().split("/", 3)[-1]
  found = set()
  for name in files:
    if (path := REPO / name).suffix in (".md", ".py", ".toml", ".ipynb", ".cff", ".sh", ".yaml", ".yml", ".css"):
      if path.exists() and f"{owner_and_name}" in path.read_text():
        found.add(path)
  assert found == set(repository.files())


def test_a_fork_moves_every_link():
  new = "https://github.com/somebody/mlpvision-fork"
  for path in repository.files():
    text = path.read_text()
    moved = repository.rewrite(text, repository.url(), new)
    assert not re.search(rf"{repository.url().split('/', 3)[-1]}(?!-)", moved)
    assert repository.rewrite(moved, new, repository.url()) == text


def test_notebooks_open_in_colab():
  for path in (REPO / "notebooks").glob("*.ipynb"):
    first, second = nbformat.read(path, as_version=4).cells[:2]
    assert f"[Open in Colab]({repository.colab(path.stem)})" in first.source
    assert f"git clone -q {repository.url()} mlpvision\n" in second.source


def _pinned(path):
  """{name: version} of a file of constraints, and of those that it includes."""
  pins = {}
  for line in path.read_text().splitlines():
    if line.startswith("-c "):
      found = _pinned(REPO / line.removeprefix("-c "))
    elif line and not line.startswith("#"):
      name, version = line.split("==")
      found = {canonicalize_name(name): version}
    else:
      continue
    assert not found.keys() & pins.keys()
    pins |= found
  return pins


def _needed(project, texts):
  """The requirements, with those of the project's own extras in place of these."""
  for requirement in map(Requirement, texts):
    if requirement.name == project["name"]:
      for extra in requirement.extras:
        yield from _needed(project, project["optional-dependencies"][extra])
    else:
      yield requirement


def test_the_versions_that_were_tested_are_allowed():
  project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
  pins = _pinned(REPO / "constraints.txt")
  needed = list(_needed(project, project["dependencies"] + project["optional-dependencies"]["test"]))
  assert len(needed) > 30
  for requirement in needed:
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
