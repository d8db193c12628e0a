"""Names in any script, or in none: on limited terminals, and in figures."""

import os
import subprocess
import sys
import warnings

from matplotlib import font_manager
from matplotlib.figure import Figure
import numpy as np
from PIL import Image
import pytest

from mlpvision.draw import figures
from mlpvision.reporting import confusion, contact_sheet, curves, lettering
from mlpvision.tasks import classification

_NAMES = (
  os.fsdecode(b"caf\xe9"),
  "中国",
  "ไทย",
  "كلب",
  "\U0001f404",
  "a\x1b[2Jb",
  "two\nlines",
  "$x$ $\\frac{$",
  "\\$5",
  "",
  "\u202eright",
  "\ue000\U000e0100\ufffe",
)


def test_figures_take_any_name(tmp_path):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    counts = np.eye(len(_NAMES), dtype=int)
    curves.to_png(confusion.figure(counts, _NAMES, "of " + " ".join(_NAMES)))
    curves.to_png(figures.saliency(np.zeros((4, 4, 3)), np.ones((4, 4)), _NAMES[0]))
    captions = [classification.caption(np.eye(len(_NAMES))[i], _NAMES) for i in range(len(_NAMES))]
    contact_sheet.draw(tmp_path / "sheet.png", np.zeros((len(_NAMES), 4, 4, 3)), captions, title=_NAMES[1])
  assert Image.open(tmp_path / "sheet.png").size[0] > 100


def test_what_no_font_has_is_written_out():
  assert lettering.plain("Kühe, Ωμέγα\nzwei") == "Kühe, Ωμέγα\nzwei"
  assert lettering.plain(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
  assert lettering.plain("\U0010fffd $a$") == r"\U0010fffd \$a\$"
  assert lettering.plain("a\x1b") == r"a\x1b"


def test_a_letter_is_drawn_by_a_font_that_has_it():
  of_default, of_stix = (
    set(font_manager.get_font(font_manager.findfont(name)).get_charmap()) for name in ("DejaVu Sans", "STIXGeneral")
  )
  letter = next(chr(code) for code in sorted(of_stix - of_default) if chr(code).isprintable())
  figure = Figure()
  text = figure.text(0.5, 0.5, lettering.plain(f"a {letter}"))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    curves.to_png(figure)
  assert text.get_text() == f"a {letter}"
  assert len(text.get_fontfamily()) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_limited_terminal_gets_replaced_letters(encoding):
  code = (
    "import sys\n"
    "from mlpvision import commands\n"
    "from mlpvision.errors import UserError\n"
    "def main(argv):\n"
    "  print('flower', *map(chr, (0x4e2d, 0xdce9)))\n"
    "  raise UserError('bad ' + ''.join(map(chr, (0x4e2d, 0xdce9, 27))))\n"
    "commands.run(main)"
  )
  run = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False
  )
  assert run.returncode == 2
  letter = "中" if encoding == "utf-8" else r"\u4e2d"
  assert run.stdout.decode(encoding) == f"flower {letter} \\udce9\n"
  assert run.stderr.decode(encoding) == f"error: bad {letter}\\xe9\\x1b\n"


def test_predictions_are_text():
  [found] = classification.predictions(np.ones(1), ["a\x1b[2J\x9b\r\n"])
  assert classification.as_text([found]) == r"  100.00%  a\x1b[2J\x9b\x0d\x0a"


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_command_goes_on_without_a_reader(descriptor, tmp_path):
  code = (
    "import pathlib, sys\n"
    "from mlpvision import commands\n"
    "def main(argv):\n"
    "  for i in range(10_000):\n"
    "    print('a line', file=(sys.stdout, sys.stderr)[i % 2], flush=True)\n"
    f"  pathlib.Path({str(tmp_path / 'done')!r}).write_text('done')\n"
    "commands.run(main)"
  )
  reader, writer = os.pipe()
  os.close(reader)
  streams = {("stdout", "stderr")[descriptor - 1]: writer, ("stderr", "stdout")[descriptor - 1]: subprocess.PIPE}
  run = subprocess.run([sys.executable, "-c", code], **streams, check=False)
  os.close(writer)
  assert run.returncode == 0
  assert (tmp_path / "done").exists()
