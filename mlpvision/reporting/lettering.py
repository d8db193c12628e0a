"""Names of unknown origin in figures: any script, never markup, never an error."""

import functools

from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure
from matplotlib.text import Text

from mlpvision.errors import printable


def plain(text: str) -> str:
  """Text for a figure, whose lines may contain anything: it is not read as mathematics, and every font can draw it.

  Control characters, undecodable bytes and letters that no installed font has are written out, as "\\u4e2d".
  """
  lines = (printable(line).replace("$", r"\$") for line in text.split("\n"))
  return "\n".join("".join(c if _family(c) else c.encode("unicode_escape").decode() for c in line) for line in lines)


def choose_fonts(figure: Figure) -> None:
  """Adds fonts to the figure's texts for the letters that the default font does not have."""
  for text in figure.findobj(Text):
    families = _families(text.get_text())
    if len(families) > 1:
      text.set_fontfamily(families)


def _families(text):
  """The default font's family, and those for other letters."""
  return list(dict.fromkeys([_default().name, *filter(None, map(_family, sorted(set(text) - {"\n"})))]))


@functools.cache
def _family(character):
  """The family of the first font that has a letter, the default one before all others; None if there is none."""
  if ord(character) in _letters(_default().fname):
    return _default().name
  return next((font.name for font in font_manager.fontManager.ttflist if _draws(font.fname, character)), None)


@functools.cache
def _default():
  path = font_manager.findfont(font_manager.FontProperties())
  return next(font for font in font_manager.fontManager.ttflist if font.fname == path)


def _draws(path, character):
  if ord(character) not in _letters(path):
    return False
  try:
    font = ft2font.FT2Font(path)
    font.set_size(10, 100)
    font.load_char(ord(character))
  except Exception:  # of any kind: bitmap fonts, such as those of emoji, have no outlines
    return False
  return True


@functools.cache
def _letters(path):
  if "LastResort" in path:  # has a box for every letter
    return frozenset()
  try:
    return frozenset(ft2font.FT2Font(path).get_charmap())
  except Exception:  # of any kind, for damaged fonts
    return frozenset()
