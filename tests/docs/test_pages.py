"""The documentation: its commands exist with their flags, its files are there."""

import importlib
import re
import tomllib

from documented import PAGES, REPO, commands
from flax import linen as nn
import jax
import pytest

from docs.tools import architecture
from mlpvision import models
from mlpvision.weights.shapes import shortest
from studies import grids

_OURS = [
  command
  for command in commands()
  if command.program.startswith("mlpvision.") or command.program in ("train.py", "studies")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
  for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
    if not re.match(r"https?:", target):
      assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", _OURS, ids=str)
def test_commands_and_their_flags_exist(command):
  """Parsed as the command would: its flags, the config's file and the config's fields."""
  known = set(re.findall(r'(?:DEFINE_|define_)\w+\(\s*"(\w+)"', command.source.read_text())) | {"help"}
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


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_fields_that_a_config_mentions_exist(path):
  for flag in re.findall(r"--(config\.[\w.]+\w)", path.read_text()):
    assert _has_field("default" if path.stem == "recipes" else path.stem, flag), f"--{flag}"


def _has_field(name, flag):
  config = importlib.import_module(f"configs.{name}").get_config()
  *groups, field = flag.split(".")[1:]
  for group in groups:
    config = config[group] if group in config else {}
  return field in config


def test_there_are_commands_to_check():
  assert len(_OURS) > 40


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_recipes_have_the_configs_values(path):
  if path.stem in ("default", "recipes"):
    return
  c = importlib.import_module(f"configs.{path.stem}").get_config()
  optim, schedule = c.optim, c.optim.schedule
  pixels = " x ".join(map(str, c.data.canvas)) if c.task == "detection" else c.data.image_size
  row = (
    f"| `{path.stem}` | `{c.model.name}` | {pixels} | {c.duration} of {c.data.batch_size:,}"
    f" | {optim.name}, {optim.learning_rate:g}, {optim.weight_decay:g} | {schedule.name}, {schedule.warmup}"
    f" | {c.model.drop_path:g} | "
  )
  assert row in (REPO / "docs" / "recipes.md").read_text()


def test_launchers_variables_are_those_that_are_tested():
  """Two processes are started with them in tests/test_processes.py."""
  named = set(re.findall(r"\b(JAX_[A-Z_]+)=", (REPO / "docs" / "distributed.md").read_text()))
  tested = (REPO / "tests" / "test_processes.py").read_text()
  assert {"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"} <= named
  assert all(name in tested for name in named)


def test_studies_are_all_listed():
  text = (REPO / "docs" / "studies.md").read_text()
  assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(grids.STUDIES)


_DRAWN = {
  "mixer": "mixer_b16",
  "s2mlp": "s2mlp_wide",
  "asmlp": "asmlp_tiny",
  "s2mlpv2": "s2mlpv2_small7",
  "cyclemlp": "cyclemlp_b1",
  "gmlp": "gmlp_s16",
  "vip": "vip_s7",
  "poolformer": "poolformer_s12",
}


@pytest.mark.parametrize(("family", "name"), _DRAWN.items())
def test_drawings_have_the_models_sizes(family, name):
  """Every shape in the drawing is one that a layer of the model gives out, and every block's count is there."""
  model = models.create(name)
  shapes = set()

  def note(next_function, arguments, keywords, context):
    result = next_function(*arguments, **keywords)
    shapes.update(" x ".join(map(str, leaf.shape[1:])) for leaf in jax.tree.leaves(result) if hasattr(leaf, "shape"))
    return result

  def run(key, images):
    with nn.intercept_methods(note):
      return shortest(model).init(key, images)

  jax.eval_shape(run, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), "float32"))
  figure = architecture.draw(family)
  texts = [text.get_text() for axes in figure.axes for text in axes.texts]
  # matplotlib writes each line of text as outlines, with the text as a comment.
  lines = sorted(line for text in [figure.get_suptitle(), *texts] for line in text.splitlines())
  committed = (REPO / "docs" / "images" / f"{family}.svg").read_text()
  assert sorted(re.findall(r"<!-- (.*) -->", committed)) == lines, "draw it again"
  drawn = {text for text in texts if re.fullmatch(r"\d+( x \d+)+", text)} - {"224 x 224 x 3"}
  assert len(drawn) >= 2
  assert drawn <= shapes
  blocks = model.depths if hasattr(model, "depths") else [model.num_blocks]
  assert [int(text.split()[-2]) for text in texts if text.endswith(" blocks")] == list(blocks)


def test_what_is_installed_exists():
  """The extras in `pip install -e '.[NAME]'`."""
  extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  named = [
    name for page in PAGES for names in re.findall(r"\.\[([\w,]+)\]", page.read_text()) for name in names.split(",")
  ]
  assert set(named) <= set(extras)
  assert "quickstart" in named
