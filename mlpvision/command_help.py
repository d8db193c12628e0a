"""What --help prints: a command's flags, or the fields of a config."""

import re
import shutil
import sys
import textwrap

from absl import flags
import ml_collections

from mlpvision import named_configs

_VALUES = {
  "path": "=PATH",
  "optional path": "[=PATH]",
  "int": "=N",
  "float": "=X",
  "bool": "",
  "config object": "=NAME or FILE",
  "comma separated list of strings": "=A,B",
}


def of_command(description: str) -> str:
  """The help of the command whose flags are defined.

  description: the docstring of its module.
  """
  found = sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda flag: flag.name)
  lines = [description.strip(), "", "Flags:"]
  for flag in found:
    default = f" Default: {flag.default_as_str.strip(chr(39))}." if flag.default not in (None, False) else ""
    no = "[no]" if flag.flag_type() == "bool" else ""
    lines += [f"  --{no}{flag.name}{_value(flag)}", *_indented(flag.help + default, 6)]
  if any(flag.name == "config" for flag in found):
    lines += ["  --config.FIELD=VALUE", *_indented("Changes a field; --config=NAME --help lists all.", 6)]
    lines += ["", "Configs that --config knows by name:", *_indented(", ".join(named_configs.names()), 2)]
  return "\n".join(lines)


def of_config(config: ml_collections.ConfigDict) -> str:
  """All fields of a config with their values, as flags, and what configs/default.py says about each."""
  comments = _comments()
  lines = ["Fields of the config, as flags. The values are the config's."]

  def add(group, prefix):
    fields = sorted(group.items(), key=lambda field: isinstance(field[1], ml_collections.ConfigDict))  # groups last
    for name, value in fields:
      path = f"{prefix}{name}"
      if isinstance(value, ml_collections.ConfigDict) and len(value):
        if path in comments:
          lines.extend(["", *_indented(comments[path], 0)])
        add(value, f"{path}.")
      else:
        text = f"{value.to_dict()}" if isinstance(value, ml_collections.ConfigDict) else f"{value}"
        quote = '"' if not text or re.search(r"[^\w@%+=:,./-]", text) else ""
        lines.append(f"  --config.{path}={quote}{text}{quote}")
        lines.extend(_indented(comments.get(path, ""), 6))

  add(config, "")
  return "\n".join(lines)


def _comments():
  """{field: its comment in configs/default.py}."""
  found, comment = {}, []
  for line in map(str.strip, named_configs.defaults().read_text().splitlines()):
    field = re.match(r"config\.([\w.]+) = ", line)
    if line.startswith("# "):
      comment.append(line[2:].strip())
      continue
    if field and comment:
      found[field[1]] = " ".join(comment)
    comment = []
  return found


def _value(flag):
  choices = getattr(flag.parser, "enum_values", None)
  return f"={'|'.join(choices)}" if choices else _VALUES.get(flag.flag_type(), "=TEXT")


def _indented(text, by):
  width = min(shutil.get_terminal_size().columns, 100)
  return textwrap.wrap(text, width, initial_indent=" " * by, subsequent_indent=" " * by)
