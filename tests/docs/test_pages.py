"""The documentation: it builds without a broken link, its commands exist with their flags, its files are there."""

import importlib
import re
import subprocess
import sys
import tomllib

from documented import PAGES, REPO, commands
import pytest

_OURS = [command for command in commands() if command.program.startswith("mlpvision.") or command.program == "train.py"]


def test_the_site_builds_without_broken_links(tmp_path):
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={tmp_path}"]
  done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
  for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
    if not re.match(r"https?:", target):
      assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", _OURS, ids=str)
def test_commands_and_their_flags_exist(command):
  """Parsed as the command would: its flags, the config's file and the config's fields."""
  path = REPO / (command.program if command.program == "train.py" else f"{command.program.replace('.', '/')}.py")
  known = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text())) | {"help"}
  if command.config:
    assert (REPO / "configs" / f"{command.config}.py").exists()
  for flag in command.flags:
    if flag.startswith("config."):
      assert _has_field(command.config or "default", flag), f"--{flag}"
    else:
      assert flag in known, f"--{flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fields_that_are_mentioned_exist(page):
  """In the text too: in some config, because some have fields of their own model."""
  configs = [path.stem for path in (REPO / "configs").glob("*.py") if path.stem != "recipes"]
  for flag in re.findall(r"`--(config\.[\w.]+\w)", page.read_text()):
    assert any(_has_field(name, flag) for name in configs), f"--{flag}"


def _has_field(name, flag):
  config = importlib.import_module(f"configs.{name}").get_config()
  *groups, field = flag.split(".")[1:]
  for group in groups:
    config = config[group] if group in config else {}
  return field in config


def test_there_are_commands_to_check():
  assert len(_OURS) > 40


def test_what_is_installed_exists():
  """The extras in `pip install -e '.[NAME]'`."""
  extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  named = [
    name for page in PAGES for names in re.findall(r"\.\[([\w,]+)\]", page.read_text()) for name in names.split(",")
  ]
  assert set(named) <= set(extras)
  assert "quickstart" in named
