"""The documentation: it builds without a broken link, its commands exist with their flags, its files are there."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

_REPO = pathlib.Path(__file__).parent.parent
_PAGES = sorted([*_REPO.glob("*.md"), *_REPO.glob("docs/**/*.md")])


def _commands():
  """Every `python -m mlpvision.X ...` and `python train.py ...` in a page, with lines that go on joined."""
  for page in _PAGES:
    text = page.read_text().replace("\\\n", " ")
    for command in re.findall(r"python (-m mlpvision[.\w]+[^`\n]*|train\.py[^`\n]*)", text):
      yield pytest.param(command.strip(), id=f"{page.name}: {' '.join(command.split())[:60]}")


def test_the_site_builds_without_broken_links(tmp_path):
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}"]
  done = subprocess.run(command, cwd=_REPO, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
  for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
    if not re.match(r"https?:", target):
      assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", list(_commands()))
def test_commands_and_their_flags_exist(command):
  """Parsed as the command would: its flags, the config's file and the config's fields."""
  module = re.match(r"-m (mlpvision[.\w]+)", command)
  source = pathlib.Path(_REPO, *(module[1].split(".") if module else ["train"])).with_suffix(".py").read_text()
  known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
  name = re.search(r"--config=configs/(\w+)\.py", command)
  for flag in re.findall(r"--([\w.]+)", command):
    if not flag.startswith("config."):
      assert flag in known, f"--{flag}"
      continue
    config = importlib.import_module(f"configs.{name[1] if name else 'default'}").get_config()
    *groups, field = flag.split(".")[1:]
    for group in groups:
      config = config[group]
    assert field in config or groups in (["model"], ["optim", "kwargs"]), f"--{flag}"
  if name:
    assert (_REPO / "configs" / f"{name[1]}.py").exists()


def test_there_are_commands_to_check():
  assert len(list(_commands())) > 40
