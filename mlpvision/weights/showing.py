"""How a loaded model reads in a terminal and in a notebook: what it is, in a line and as a table."""

from collections.abc import Mapping, Sequence
import html
from typing import Any

from flax import linen as nn
import jax

from mlpvision.errors import printable
from mlpvision.preprocessing import Preprocessing

_NAMES = 5  # classes of a table


def line(kind: str, name: str, module: nn.Module, params: Mapping[str, Any], source: str) -> str:
  """Such as "Trained(mixer_b16: 59,880,472 parameters, 1,000 classes, from runs/mixer)".

  kind: of the object; name: of the model; source: of the weights, "" if unknown.
  """
  facts = [f"{_count(params):,} parameters", _head(module), f"from {printable(source)}" if source else ""]
  return f"{kind}({name}: {', '.join(filter(None, facts))})"


def table(
  name: str,
  module: nn.Module,
  params: Mapping[str, Any],
  source: str,
  preprocessing: Preprocessing | None,
  class_names: Sequence[str] | None,
) -> str:
  """The same and more as an HTML table."""
  backbone = getattr(module, "backbone", module)
  kind = type(module).__name__ + ("" if backbone is module else f" on {type(backbone).__name__}")
  facts = {"model": f"{name}, {kind}", "weights": source, "parameters": f"{_count(params):,}"}
  names = list(class_names or ())
  shown = ", ".join(names[:_NAMES]) + (", ..." if names[_NAMES:] else "")
  facts["classes"] = f"{_head(module)}{f': {shown}' if shown else ''}"
  facts["images"] = str(preprocessing or "not specified")
  if info := getattr(backbone, "feature_info", None):
    maps = (f"{one['num_chs']:,} channels at stride {one['reduction']}" for one in info)
    facts["feature maps"] = "; ".join(maps)
  rows = "".join(f"<tr><th>{key}</th><td>{html.escape(printable(value))}</td></tr>" for key, value in facts.items())
  return f'<table style="text-align: left">{rows}</table>'


def _count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _head(module):
  return f"{module.num_classes:,} classes" if module.num_classes else "no head"
