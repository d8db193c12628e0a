"""Reads pickles without unpickling them.

A pickle is a program for a small stack machine, which can create any object and call any function. This machine runs
the same program on numbers, strings, tuples, lists, dicts and placeholders alone. It never imports, calls, compares or
prints what the pickle names, and its time and memory are bounded by the number of instructions.
"""

from collections.abc import Mapping
import struct
from typing import Any

# A checkpoint of 300 parameters with the state of an optimizer has about 50,000 instructions, and 2 MB.
MAX_BYTES, _MAX_STEPS = 64 << 20, 2_000_000
# Anything longer is replaced: it is neither the name of a tensor nor a number that we need.
_MAX_TEXT, _MAX_KEY, _MAX_INTEGER = 1 << 16, 1000, 64


class Name:
  """A function or class that a pickle refers to; only its name is known."""

  __slots__ = ("module", "name")

  def __init__(self, module: str, name: str) -> None:
    self.module, self.name = module, name


class Inert:
  """Replaces an object whose content is ignored."""

  __slots__ = ()


class Machine:
  """Runs one pickle. Subclasses decide what names, calls and references of the pickle stand for.

  Args:
    data: bytes or mmap.
    start: position of the pickle in data.
  """

  def __init__(self, data: Any, start: int = 0) -> None:
    self._data, self._at, self._end = data, start, min(len(data), start + MAX_BYTES)
    self._stack, self._outer, self._memo, self._steps = [], [], {}, _MAX_STEPS

  def named(self, module: str, name: str) -> Any:
    """What a pickle's reference to module.name becomes."""
    return Name(module, name)

  def called(self, function: Name, arguments: tuple) -> Any:
    """What a call becomes."""
    return Inert()

  def referred(self, reference: Any) -> Any:
    """What a reference to data beside the pickle becomes."""
    raise ValueError("it refers to data elsewhere")

  def run(self) -> tuple[Any, int]:
    """(content, position after the pickle). Raises ValueError, IndexError, TypeError or struct.error."""
    while True:
      self._spend(1)
      (code,) = self._take(1)
      if code == _STOP:
        return self._stack.pop(), self._at
      if code not in _OPERATIONS:
        raise ValueError(f"byte {self._at - 1} of its pickle, {code:#04x}, is not an instruction that weights need")
      _OPERATIONS[code](self)

  def _spend(self, steps):
    self._steps -= steps
    if self._steps < 0:
      raise ValueError(f"its pickle has more than {_MAX_STEPS:,} instructions")

  def _skip(self, size):
    if not 0 <= size <= self._end - self._at:
      raise ValueError("its pickle ends too early, or is longer than 64 MiB")
    self._at += size

  def _take(self, size):
    start = self._at
    self._skip(size)
    return self._data[start : start + size]

  def _integer(self, layout):
    return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

  def _line(self):
    end = self._data.find(b"\n", self._at, min(self._end, self._at + _MAX_TEXT))
    if end < 0:
      raise ValueError("a line of its pickle has no end")
    return self._take(end + 1 - self._at)[:-1].decode("utf-8", "backslashreplace")

  def _push(self, value):
    self._stack.append(value)

  def _push_text(self, size, encoding="utf-8"):
    if size > _MAX_TEXT:
      self._skip(size)
      return self._push(Inert())
    return self._push(self._take(size).decode(encoding, "backslashreplace"))

  def _push_inert(self, size=0):
    self._skip(size)
    self._push(Inert())

  def _push_integer(self, size):
    if size > _MAX_INTEGER:
      return self._push_inert(size)
    return self._push(int.from_bytes(self._take(size), "little", signed=True))

  def _push_number(self, kind):
    text = self._line()
    self._push({"00": False, "01": True}[text] if kind is int and text in ("00", "01") else kind(text.rstrip("L")))

  def _mark(self):
    self._outer.append(self._stack)
    self._stack = []

  def _pop_mark(self):
    items, self._stack = self._stack, self._outer.pop()
    return items

  def _pop(self):
    if self._stack:
      self._stack.pop()
    else:
      self._pop_mark()

  def _tuple(self, size):
    if len(self._stack) < size:
      raise IndexError("the stack is empty")
    self._stack[-size:] = [tuple(self._stack[-size:])]

  def _name(self, module, name):
    if type(module) is not str or type(name) is not str:
      raise ValueError("a name in its pickle is not text")
    self._push(self.named(module, name))

  def _stack_name(self):
    name = self._stack.pop()
    self._name(self._stack.pop(), name)

  def _call(self, function, arguments):
    if type(function) is not Name or type(arguments) not in (tuple, Inert):
      raise ValueError("its pickle calls something that is not a function")
    arguments = arguments if type(arguments) is tuple else ()
    if (function.module, function.name) == ("collections", "OrderedDict"):
      self._push(self._dict(arguments[0] if arguments else ()))
    else:
      self._push(self.called(function, arguments))

  def _dict(self, pairs):
    """A dict of the list of pairs with which Python 2 creates an OrderedDict."""
    found = {}
    if type(pairs) in (list, tuple):
      self._spend(len(pairs))
      for pair in pairs:
        if type(pair) in (list, tuple) and len(pair) == 2:
          _put(found, *pair)
    return found

  def _reduce(self):
    arguments = self._stack.pop()
    self._call(self._stack.pop(), arguments)

  def _create(self):  # with keyword arguments
    self._stack.pop()
    self._reduce()

  def _instance(self):
    items = self._pop_mark()
    self._call(items[0], tuple(items[1:]))

  def _instance_of_name(self):
    items, module = self._pop_mark(), self._line()
    self._call(self.named(module, self._line()), tuple(items))

  def _build(self):
    self._stack.pop()  # the state of an object whose content is ignored, or the attributes of an OrderedDict
    if type(self._stack[-1]) not in (Inert, dict):
      raise ValueError("its pickle sets attributes of something that has none")

  def _append(self, items):
    if type(self._stack[-1]) is list:
      self._stack[-1].extend(items)
    elif type(self._stack[-1]) is not Inert:
      raise ValueError("its pickle appends to something that is not a list")

  def _append_one(self):
    item = self._stack.pop()
    self._append([item])

  def _set_one(self):
    value, key = self._stack.pop(), self._stack.pop()
    _put(self._stack[-1], key, value)

  def _set(self, items):
    for key, value in zip(items[::2], items[1::2], strict=True):
      _put(self._stack[-1], key, value)

  def _push_dict(self):
    items = self._pop_mark()
    self._push({})
    self._set(items)

  def _freeze(self):
    self._pop_mark()
    self._push(Inert())

  def _remember(self, index):
    self._memo[index] = self._stack[-1]

  def _recall(self, index):
    if index not in self._memo:
      raise ValueError("its pickle uses an object before it is there")
    self._push(self._memo[index])


def _put(target, key, value):
  """Sets an item of a dict. Keys that no state dict has are left out: hashing or comparing them can take any time."""
  if type(target) is dict:
    if (type(key) is str and len(key) <= _MAX_KEY) or (type(key) is int and -(2**60) < key < 2**60):
      target[key] = value
  elif type(target) is not Inert:
    raise ValueError("its pickle sets an item of something that is not a dict")


_STOP = ord(".")
# The instructions of protocols 0 to 4 that torch.save writes, by the names in Python's pickletools. Protocol 5 adds
# out-of-band buffers, and all protocols have extension codes: neither is in any weight file.
_OPERATIONS: Mapping[int, Any] = {
  code[0]: operation
  for code, operation in {
    b"\x80": lambda m: m._skip(1),  # PROTO
    b"\x95": lambda m: m._skip(8),  # FRAME
    b"(": Machine._mark,  # MARK
    b"0": Machine._pop,  # POP
    b"1": Machine._pop_mark,  # POP_MARK
    b"2": lambda m: m._push(m._stack[-1]),  # DUP
    b"N": lambda m: m._push(None),  # NONE
    b"\x88": lambda m: m._push(True),  # NEWTRUE
    b"\x89": lambda m: m._push(False),  # NEWFALSE
    b"I": lambda m: m._push_number(int),  # INT
    b"L": lambda m: m._push_number(int),  # LONG
    b"F": lambda m: m._push_number(float),  # FLOAT
    b"J": lambda m: m._push(m._integer("<i")),  # BININT
    b"K": lambda m: m._push(m._integer("<B")),  # BININT1
    b"M": lambda m: m._push(m._integer("<H")),  # BININT2
    b"\x8a": lambda m: m._push_integer(m._integer("<B")),  # LONG1
    b"\x8b": lambda m: m._push_integer(m._integer("<i")),  # LONG4
    b"G": lambda m: m._push(m._integer(">d")),  # BINFLOAT
    b"S": lambda m: m._push(m._line().strip("'\"")),  # STRING
    b"V": lambda m: m._push(m._line()),  # UNICODE
    b"U": lambda m: m._push_text(m._integer("<B"), "latin1"),  # SHORT_BINSTRING
    b"T": lambda m: m._push_text(m._integer("<i"), "latin1"),  # BINSTRING
    b"\x8c": lambda m: m._push_text(m._integer("<B")),  # SHORT_BINUNICODE
    b"X": lambda m: m._push_text(m._integer("<I")),  # BINUNICODE
    b"\x8d": lambda m: m._push_text(m._integer("<Q")),  # BINUNICODE8
    b"C": lambda m: m._push_inert(m._integer("<B")),  # SHORT_BINBYTES
    b"B": lambda m: m._push_inert(m._integer("<I")),  # BINBYTES
    b"\x8e": lambda m: m._push_inert(m._integer("<Q")),  # BINBYTES8
    b"\x96": lambda m: m._push_inert(m._integer("<Q")),  # BYTEARRAY8
    b")": lambda m: m._push(()),  # EMPTY_TUPLE
    b"t": lambda m: m._push(tuple(m._pop_mark())),  # TUPLE
    b"\x85": lambda m: m._tuple(1),  # TUPLE1
    b"\x86": lambda m: m._tuple(2),  # TUPLE2
    b"\x87": lambda m: m._tuple(3),  # TUPLE3
    b"]": lambda m: m._push([]),  # EMPTY_LIST
    b"l": lambda m: m._push(m._pop_mark()),  # LIST
    b"a": Machine._append_one,  # APPEND
    b"e": lambda m: m._append(m._pop_mark()),  # APPENDS
    b"}": lambda m: m._push({}),  # EMPTY_DICT
    b"d": Machine._push_dict,  # DICT
    b"s": Machine._set_one,  # SETITEM
    b"u": lambda m: m._set(m._pop_mark()),  # SETITEMS
    b"\x8f": Machine._push_inert,  # EMPTY_SET
    b"\x90": lambda m: m._append(m._pop_mark()),  # ADDITEMS
    b"\x91": Machine._freeze,  # FROZENSET
    b"c": lambda m: m._name(m._line(), m._line()),  # GLOBAL
    b"\x93": Machine._stack_name,  # STACK_GLOBAL
    b"R": Machine._reduce,  # REDUCE
    b"\x81": Machine._reduce,  # NEWOBJ
    b"\x92": Machine._create,  # NEWOBJ_EX
    b"o": Machine._instance,  # OBJ
    b"i": Machine._instance_of_name,  # INST
    b"b": Machine._build,  # BUILD
    b"P": lambda m: m._push(m.referred(m._line())),  # PERSID
    b"Q": lambda m: m._push(m.referred(m._stack.pop())),  # BINPERSID
    b"p": lambda m: m._remember(int(m._line())),  # PUT
    b"q": lambda m: m._remember(m._integer("<B")),  # BINPUT
    b"r": lambda m: m._remember(m._integer("<I")),  # LONG_BINPUT
    b"\x94": lambda m: m._remember(len(m._memo)),  # MEMOIZE
    b"g": lambda m: m._recall(int(m._line())),  # GET
    b"h": lambda m: m._recall(m._integer("<B")),  # BINGET
    b"j": lambda m: m._recall(m._integer("<I")),  # LONG_BINGET
  }.items()
}
