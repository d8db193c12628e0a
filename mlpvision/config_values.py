"""What values a config field may have: pairs (whether a value is valid, the valid values in words)."""

from collections.abc import Callable, Sequence
from typing import Any

from mlpvision import durations as durations_lib

Values = tuple[Callable[[Any], bool], str]

STEPS, TIMES = ("step", "epoch"), ("minute", "hour")  # units of durations
_LARGEST = 3e38  # of float32; NaN and infinity are not within
_EXAMPLES = {"step": "10000 steps", "epoch": "20 epochs", "second": "10 seconds", "minute": "30 minutes"}
_EXAMPLES["hour"] = "1 hour"


def is_number(x: Any) -> bool:
  """Whether a value is a finite number of float32."""
  return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= _LARGEST


def is_in(*names: str) -> Values:
  """One of the names."""
  return lambda x: isinstance(x, str) and x in names, f"one of {', '.join(names)}"


def number(fits: Callable[[float], bool], words: str) -> Values:
  """A finite number that fits."""
  return lambda x: is_number(x) and fits(x), words


def integer(fits: Callable[[int], bool], words: str) -> Values:
  """An integer that fits, of at most 32 bits."""
  return lambda x: type(x) is int and abs(x) < 2**32 and fits(x), words


def numbers(length: int, fits: Callable[..., bool], words: str) -> Values:
  """A tuple of finite numbers; fits(*numbers)."""
  return lambda x: is_tuple(x) and len(x) == length and all(map(is_number, x)) and fits(*x), words


def integers(low: int, high: int, words: str, *, length: int | None = None) -> Values:
  """A tuple of integers in [low, high]: of this length, or of any but 0."""

  def fits(x):
    fits_length = is_tuple(x) and (len(x) == length if length else len(x) > 0)
    return fits_length and all(type(v) is int and low <= v <= high for v in x)

  return fits, words


def duration(units: Sequence[str], *others: str, zero: bool = False) -> Values:
  """A positive (or zero) number with one of the units, or one of the other strings."""
  words = " or ".join(f'"{example}"' for example in (*(_EXAMPLES[unit] for unit in units), *others))

  def fits(x):
    number, unit = durations_lib.parse(x)
    is_duration = unit in units and (number > 0 or zero) and number <= durations_lib.MAX_STEPS
    return isinstance(x, str) and (x in others or is_duration)

  return fits, f"write {words}"


def durations(units: Sequence[str]) -> Values:
  """A tuple of durations with one of the units."""
  fits, _ = duration(units)
  words = ", ".join(f'"{_EXAMPLES[unit]}"' for unit in units)
  return lambda x: is_tuple(x) and all(map(fits, x)), f"must be a tuple of durations such as {words}"


def pairs(fits_second: Callable[[Any], bool], words: str) -> Values:
  """A tuple of (string, value) pairs."""

  def is_pair(x):
    return is_tuple(x) and len(x) == 2 and isinstance(x[0], str) and fits_second(x[1])

  return lambda x: is_tuple(x) and all(map(is_pair, x)), words


def is_tuple(x: Any) -> bool:
  """Whether a value is a tuple, or the list that it has become in JSON."""
  return isinstance(x, tuple | list)


TEXT: Values = (lambda x: isinstance(x, str), "a string")
NAME: Values = (lambda x: isinstance(x, str) and bool(x), "a string that is not empty")
FLAG: Values = (lambda x: isinstance(x, bool), "must be True or False")
COUNT = integer(lambda x: x >= 1, "must be a positive integer")
SHARE = number(lambda x: 0 <= x < 1, "must be in [0, 1)")
PROBABILITY = number(lambda x: 0 <= x <= 1, "a probability, in [0, 1]")
POSITIVE = number(lambda x: x > 0, "must be positive")
NOT_NEGATIVE = number(lambda x: x >= 0, "must be positive, or 0 for none")
