"""What the documentation tells its readers to type: commands, and blocks of Python."""

import dataclasses
import pathlib
import re
import shlex

from mlpvision.__main__ import COMMANDS

REPO = pathlib.Path(__file__).parent.parent.parent
PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")])
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Command:
  """`python -m MODULE ARGUMENTS`, `python FILE.py ARGUMENTS` or `mlpvision COMMAND ARGUMENTS`, as a page has it."""

  page: str
  program: str  # "mlpvision.evaluate", "train.py"
  arguments: tuple[str, ...]

  def __str__(self):
    return f"{self.page}: {self.program} {' '.join(self.arguments)}"

  @property
  def source(self):
    """The file that has its flags: of a package, its __main__."""
    if self.program == "train.py":
      return REPO / "mlpvision" / "train.py"
    if self.program.endswith(".py"):
      return REPO / self.program
    path = REPO / self.program.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")

  @property
  def config(self):
    """The name of its config, "" where it names none."""
    found = re.search(r"--config=(?:configs/(\w+)\.py|(\w+)(?![\w./]))", " ".join(self.arguments))
    return found[1] or found[2] if found else ""

  @property
  def flags(self):
    """Names of its flags, without dashes."""
    return [part.partition("=")[0].lstrip("-") for part in self.arguments if part.startswith("-")]


def commands():
  """Every command of every page, in order."""
  found = []
  for page in PAGES:
    for line in _lines(page.read_text()):
      for match in re.finditer(r"python (?:-m ([\w.]+)|([\w/]+\.py))([^;|>]*)", line):
        found.append(Command(page.name, match[1] or match[2], _split(match[3])))
      for match in re.finditer(rf"(?<![\w/.-])mlpvision ({'|'.join(COMMANDS)})\b([^;|>]*)", line):
        program = "train.py" if match[1] == "train" else COMMANDS[match[1]][0]
        found.append(Command(page.name, program, _split(match[2])))
  return found


def python_blocks(page):
  """The blocks of Python of a page, in order."""
  return [code for language, code in _FENCED.findall(page.read_text()) if language == "python"]


def files(page):
  """{path: contents} of the files that a page gives in full: a block of Python after "..., `path`:"."""
  return dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


def _lines(text):
  """What may be a command: lines of code, and spans of code in a line of text, which may go on in the next."""
  for language, code in _FENCED.findall(text):
    if language == "python":
      continue
    yield from code.replace("\\\n", " ").splitlines()
  prose = _FENCED.sub("", text).replace("\\\n", " ")
  indented = [line for line in prose.splitlines() if line.startswith("    ")]
  yield from indented
  for span in re.findall(r"`([^`]+)`", prose):
    yield " ".join(span.split())


def _split(arguments):
  """As a shell does it; a quotation that began before the command ends with it."""
  if arguments.count('"') % 2:
    arguments = arguments.strip().removesuffix('"')
  return tuple(shlex.split(arguments, comments=True))
