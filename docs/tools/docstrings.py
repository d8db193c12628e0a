"""Docstrings as reStructuredText, for the API reference.

Docstrings are plain text with single backticks, lists, tables of Markdown, sections ("Args:"), and indented blocks for
layouts and commands.
"""

import re

_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
_TITLES = {"Args": "Parameters"}
_NAMED = re.compile(r"([\w*]+(?:, [\w*]+)*): ")


def to_rst(lines: list[str]) -> list[str]:
  """The lines of a docstring, without their common indentation, as reStructuredText."""
  result, block = [], []
  fence = None
  for line in [*lines, ""]:
    if line.startswith("```"):
      if fence is None:
        result += _block(block)
        fence, block = line[3:].strip() or "python", []
      else:
        result += ["", f".. code-block:: {fence}", "", *_indented(block, 2), ""]
        fence, block = None, []
    elif fence is not None:
      block.append(line)
    elif line.strip():
      if _SECTION.match(line) and block:
        result += _block(block)
        block = []
      block.append(line)
    elif block and _SECTION.match(block[0]):
      block.append(line)  # a section may contain paragraphs; the next line says whether it goes on
    else:
      result += _block(block)
      block = []
    if len(block) > 1 and _SECTION.match(block[0]) and line.strip() and not line.startswith(" "):
      result += _block(block[:-1])
      block = block[-1:]
  return result + _block(block)


def _block(lines):
  """A paragraph, list, table, section or indented block."""
  while lines and not lines[-1].strip():
    lines = lines[:-1]
  if not lines:
    return []
  if _SECTION.match(lines[0]):
    return _section(lines[0].removesuffix(":"), _indented(lines[1:], 0))
  if lines[0].startswith("|"):
    return _table(lines)
  start = next((i for i, line in enumerate(lines) if re.match(r" *- ", line)), None)
  if start is not None:
    end = next((i for i, line in enumerate(lines) if i > start and re.match(r"\w", line)), len(lines))
    items = _indented(lines[start:end], 0)
    return [*_block(lines[:start]), "", *_inline("\n".join(items)).splitlines(), "", *_block(lines[end:])]
  if all(line.startswith("  ") for line in lines):
    return ["", ".. code-block:: text", "", *_indented(lines, 2), ""]
  items = []
  for i, line in enumerate(lines):
    hangs = line.startswith(" ")
    begins = i and not hangs and (_NAMED.match(line) and _NAMED.match(lines[0]) or lines[i - 1].startswith(" "))
    if begins or not items:
      items.append(line)
    else:
      items[-1] += " " + line.strip()
  if len(items) == 1 and len(lines) > 1 and lines[0].endswith(":") and lines[1].startswith("  "):
    return [*_block(lines[:1]), *_block(lines[1:])]  # a line of text, and what it announces
  if len(items) == 1:
    return ["", _inline(items[0]), ""]
  return ["", *map(_item, items), ""]


def _section(name, lines):
  """A field: a list of names with what they are, or text."""
  if name in ("Returns", "Yields"):
    body = to_rst(lines)
  else:
    items = []
    for line in filter(str.strip, lines):
      if line.startswith(" ") and items:
        items[-1] += " " + line.strip()
      else:
        items.append(line)
    body = list(map(_item, items))
  return ["", f":{_TITLES.get(name, name)}:", *_indented(["", *body], 2), ""]


def _item(text):
  name, colon, rest = text.partition(": ")
  return f"- **{_inline(name)}** – {_inline(rest)}" if colon and len(name) < 60 else f"- {_inline(text)}"


def _table(lines):
  """A list-table of a table of Markdown."""
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not re.fullmatch(r"[|: -]+", line)]
  cells = [f"   {'-' if i else '* -'.rjust(3)} {_inline(cell)}" for row in rows for i, cell in enumerate(row)]
  cells = [cell if "* -" in cell else f"     {cell.strip()}" for cell in cells]
  return ["", ".. list-table::", "   :header-rows: 1", "", *cells, ""]


def _indented(lines, width):
  """Lines with `width` spaces in place of their common indentation."""
  common = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
  return [" " * width + line[common:] if line.strip() else "" for line in lines]


def _inline(text):
  """Text with its code marked and everything else literal."""
  parts = re.split(r"`([^`]+)`", text)
  for i, part in enumerate(parts):
    if i % 2:
      before = "\\ " if re.search(r"[\w']$", parts[i - 1]) else ""
      after = "\\ " if re.match(r"\w", parts[i + 1]) else ""
      parts[i] = f"{before}``{' '.join(part.split())}``{after}"
    else:
      parts[i] = re.sub(r"_(?!\w)", r"\\_", re.sub(r"([\\*|])", r"\\\1", part))
  return "".join(parts)
