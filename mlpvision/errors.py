"""The exception for mistakes that the user can correct, and foreign text in messages."""

import unicodedata

_JOINERS = "\u200c\u200d"  # which several scripts need inside words


class UserError(Exception):
  """The input is invalid; the message says what, where, and what to do. Commands print it and exit with code 2."""


def printable(text: str) -> str:
  """Text of unknown origin, such as a file's or a class's name, for a terminal: control characters are written out.

  An escape sequence could otherwise change the terminal. Undecodable bytes of file names, line breaks, and marks that
  change the direction of the text are also written out, as "\\xe9" or "\\u202e".
  """
  return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character):
  if character.isprintable() or character in _JOINERS or unicodedata.category(character) in ("Zs", "Co", "Cn"):
    return character
  code = ord(character)
  if 0xDC80 <= code <= 0xDCFF:  # `os.fsdecode` of an undecodable byte
    code -= 0xDC00
  return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
