"""What all commands share: flags and readable errors."""

from collections.abc import Callable
import contextlib
import ctypes
import difflib
import errno
import functools
import importlib
import importlib.util
import os
import platform
import re
import shlex
import sys
import threading
import traceback
import types
from typing import Any
import zlib

from absl import app, flags, logging

from mlpvision import command_help, named_configs, streams
from mlpvision.errors import UserError, printable

flags.disclaim_key_flags()  # those of `define_path` belong to its caller, in --help

# Help of the flag --preprocessing.
PREPROCESSING = "Published weights that expect the same of an image as these, which do not say it."

# From glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def run(main: Callable[[list[str]], None]) -> None:
  """Runs main(argv) under absl; a UserError becomes one message and exit code 2."""
  # Silences TensorFlow, which is only used to write TensorBoard events.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  streams.reopen()
  keep_freed_memory()
  keep_compiled_programs()

  def guarded(argv):
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    try:
      main(argv)
    except UserError as error:
      _exit(str(error))
    except app.UsageError as error:
      _exit(f"{error}. --help explains the command")
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
      _exit(f"{error}. Free some space there; the same command resumes a run")
    except KeyboardInterrupt:
      _exit("interrupted", 130)
    except (RuntimeError, AssertionError) as error:
      if not _is_missing_accelerator(error):
        raise
      detail = f": {str(error).splitlines()[0]}" if str(error) else ""
      _exit(f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}, but JAX finds no such device here{detail}")

  app.run(guarded, flags_parser=functools.partial(_parse, main.__globals__.get("__doc__") or ""))


def _is_missing_accelerator(error):
  """Whether JAX could not start the platforms of JAX_PLATFORMS; its exceptions have no class of their own."""
  frames = traceback.extract_tb(error.__traceback__)
  return bool(os.environ.get("JAX_PLATFORMS")) and frames[-1].filename.endswith(
    os.path.join("jax", "_src", "xla_bridge.py")
  )


def define_path(name: str, default: str | None, help_text: str) -> flags.FlagHolder:
  """A flag for a file or directory; ~ is the home directory, which shells do not expand after "--name="."""
  return flags.DEFINE(_PathParser(), name, default, help_text)


class _PathParser(flags.ArgumentParser):
  def parse(self, argument: str) -> str:
    return os.path.expanduser(argument).rstrip("/") or argument

  def flag_type(self) -> str:
    return "path"


def define_optional_path(name: str, help_text: str) -> flags.FlagHolder:
  """A flag with or without a file: None if it is absent, "" for "--name" alone, and the file of "--name=FILE"."""
  flag = flags.Flag(_OptionalPathParser(), None, name, None, help_text, boolean=True)
  return flags.DEFINE_flag(flag)


class _OptionalPathParser(_PathParser):
  def parse(self, argument: str) -> str | None:  # absl's words for "--name" and "--noname" are true and false
    return {"true": "", "false": None}[argument] if argument in ("true", "false") else super().parse(argument)

  def flag_type(self) -> str:
    return "optional path"


def read_config(holder: flags.FlagHolder) -> Any:
  """The value of a --config flag. Raises UserError if the file does not exist or cannot be executed."""
  config = holder.value
  try:
    getattr(config, "data", None)  # errors in the file are raised by the first access
  except OSError as error:
    raise UserError(_missing_config(error)) from error
  return config


def of_repository(name: str, what: str) -> types.ModuleType:
  """Imports a module that only the repository has, such as "docs.tools.architecture"; if missing, a UserError."""
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != name.split(".")[0] and not name.startswith(f"{error.name}."):
      raise
    raise UserError(
      f"{what} needs {name.replace('.', '/')}.py, which comes with the repository, not with the installed package:"
      " run the command in the repository's root"
    ) from error


def _missing_config(error):
  """The message for a config that does not exist or imports what does not exist."""
  problem = str(error).splitlines()[-1].strip()  # the line that names the file
  problem = problem.replace(f"[Errno {errno.ENOENT}] {os.strerror(errno.ENOENT)}:", "there is no file")
  value = getattr(error, "filename", None) or (re.findall(r"'([^']*)'", problem) or [""])[-1]
  stem = os.path.basename(value).removesuffix(".py")
  near = difflib.get_close_matches(stem, named_configs.names(), 1)
  hint = f"Did you mean --config={near[0]}?" if near else "--help lists the names that need no file"
  return f"--config: {problem}. {hint}"


def as_typed() -> str:
  """The command of this process as its user typed it, for messages that ask to repeat it."""
  program, *arguments = sys.argv
  spec = sys.modules["__main__"].__spec__
  if not program.startswith(("mlpvision ", "python -m ")):  # those of mlpvision/__main__.py
    program = f"python -m {spec.name.removesuffix('.__main__')}" if spec else f"python {shlex.quote(program)}"
  return f"{program} {shlex.join(arguments)}"


def _parse(description, argv):
  fields = [argument for argument in argv if re.match("--(no)?config\\.", argument)]
  if fields and not any(re.match("--?config(=|$)", argument) for argument in argv):
    return _exit(f"{fields[0]} changes a config: add --config=FILE")
  try:
    argv = _with_files(argv)
    if any(argument in ("--help", "-help", "-h") for argument in argv):
      print(_help(description, argv))
      sys.exit()
    return flags.FLAGS(argv)
  except flags.Error as error:
    return _exit(_bad_flag(error))
  except UserError as error:
    return _exit(str(error))
  except (OSError, ImportError) as error:
    return _exit(_missing_config(error))
  except (KeyError, AttributeError) as error:  # ml_collections raises these for unknown fields
    field = re.search(r"[A-Za-z_]\w*", str(error))
    hint = re.search(r'[Dd]id you mean "\w+"', str(error))
    return _exit(f"the config has no field {field[0] if field else error!r}{f'. {hint[0]}?' if hint else ''}")


def _with_files(argv):
  """The arguments with a file in place of a config's name; as one argument "--config=FILE"."""
  found, rest = [], iter(argv)
  for argument in rest:
    match = re.fullmatch("--?config(?:=(.*))?", argument, re.DOTALL)
    value = (next(rest, None) if match[1] is None else match[1]) if match else None
    found.append(argument if value is None else f"--config={named_configs.resolve(value)}")
  return found


def _help(description, argv):
  value = next((argument.partition("=")[2] for argument in argv if argument.startswith("--config=")), None)
  if value is None:
    return command_help.of_command(description)
  flag = flags.FLAGS["config"]
  flag.parse(value)
  getattr(flag.value, "data", None)  # raises what is wrong with the file
  return command_help.of_config(flag.value)


def _bad_flag(error):
  """One line of absl's message for a flag that is missing, unknown or has a bad value."""
  text = str(error)
  if missing := re.search(r"Flag --(\w+) must have a value other than None", text):
    return f"--{missing[1]} is missing. --help lists the flags"
  if unknown := re.search(r"Unknown command line flag '([^']*)'(?:.*Did you mean: (\w+))?", text):
    hint = f"Did you mean --{unknown[2]}?" if unknown[2] else "--help lists the flags"
    return f"there is no flag --{unknown[1]}. {hint}"
  if "Traceback" in text:  # of a config's own exception
    return f"{text.partition(': ')[0]}: {text.strip().splitlines()[-1]}"
  return f"{' '.join(text.split())}. --help lists the flags"


def _exit(message, code=2):
  message = "\n".join(map(printable, message.splitlines()))  # it may quote a file
  print(f"error: {message}" if code == 2 else message, file=sys.stderr)
  if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
    # Python would wait for these threads; those of orbax wait for minutes for a save that has failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def keep_compiled_programs() -> None:
  """Lets JAX keep compiled programs in ~/.cache/mlpvision, so that a run that is resumed compiles nothing again.

  Call it before JAX is imported. Several processes may use the directory at once; the programs used least recently go
  first when it grows above 4 GiB. JAX's own variables take precedence: JAX_COMPILATION_CACHE_DIR names another
  directory, also one in a bucket, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
  # A program for CPUs runs only on CPUs with the same instructions, and a home directory may belong to many machines.
  directory = os.path.join(base, "mlpvision", f"compiled-{_instructions():08x}")
  try:
    os.makedirs(directory, exist_ok=True)
    _remove_incomplete(directory)
  except OSError:  # a read-only home directory
    return
  os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
  os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(4 * 2**30))
  # JAX's default is 1; the programs that draw a new run's parameters take less, but there are many.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _remove_incomplete(directory):
  """Removes programs whose writing was interrupted. JAX would neither use nor replace them, nor keep any others."""

  def found():
    names = set(os.listdir(directory))
    programs = {name.removesuffix("-cache") for name in names if name.endswith("-cache")}
    return [name for name in programs if f"{name}-atime" not in names]

  if not found():
    return
  import filelock

  with (
    contextlib.suppress(filelock.Timeout),  # another process writes now
    filelock.FileLock(os.path.join(directory, ".lockfile"), timeout=0),
  ):
    for name in found():
      os.unlink(os.path.join(directory, f"{name}-cache"))


def _instructions():
  """A number for the instruction set of this machine's CPUs."""
  text = platform.machine()
  with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
    text += next((line for line in file if line.startswith(("flags", "Features"))), "")
  return zlib.crc32(text.encode())


def keep_freed_memory() -> None:
  """Makes glibc keep freed memory if JAX computes on the CPU. Call it before JAX starts.

  XLA's CPU backend allocates its temporaries anew in every step. glibc returns blocks of that size to the kernel, which
  clears them page by page when they are allocated again: two fifths of the quickstart's CPU time. A single heap that
  never shrinks avoids this. With another C library or an accelerator, nothing changes.
  """
  accelerator = any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
  if accelerator and os.environ.get("JAX_PLATFORMS") != "cpu":
    return
  set_option = getattr(ctypes.CDLL(None), "mallopt", None)
  if set_option is None:
    return
  # Blocks above 32 MiB are mapped regardless of the threshold, and heaps of other arenas are limited to 64 MiB.
  set_option(_M_ARENA_MAX, 1)
  set_option(_M_MMAP_MAX, 0)
  set_option(_M_TRIM_THRESHOLD, -1)  # never trim; the largest threshold is 2 GiB, and models free more
