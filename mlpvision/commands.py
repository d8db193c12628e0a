"""What all commands share: flags and readable errors."""

from collections.abc import Callable
import contextlib
import ctypes
import errno
import importlib
import importlib.util
import os
import platform
import re
import sys
import threading
import traceback
import types
from typing import Any
import zlib

from absl import app, flags, logging

from mlpvision import streams
from mlpvision.errors import UserError, printable

flags.disclaim_key_flags()  # those of `define_path` belong to its caller, in --help

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
    except ModuleNotFoundError as error:
      _exit(_missing_config(error))
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

  app.run(guarded, flags_parser=_parse)


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
  """The message for a missing config file or a missing package `configs`; raises any other error again."""
  if isinstance(error, ModuleNotFoundError):
    if error.name != "configs":
      raise error
    problem = "no directory configs here"
  else:
    problem = str(error).splitlines()[-1].strip()  # the line that names the file
  return f"--config: {problem}{_where_configs_are()}"


def _where_configs_are():
  if os.path.isdir("configs"):
    return ""
  return ". The configs come with the repository, not with the installed package: run the command in its root"


def _parse(argv):
  fields = [argument for argument in argv if re.match("--(no)?config\\.", argument)]
  if fields and not any(re.match("--?config(=|$)", argument) for argument in argv):
    return _exit(f"{fields[0]} changes a config: add --config=FILE{_where_configs_are()}")
  try:
    return app.parse_flags_with_usage(argv)
  except (OSError, ModuleNotFoundError) as error:
    return _exit(_missing_config(error))
  except (KeyError, AttributeError) as error:  # ml_collections raises these for unknown fields
    field = re.search(r"[A-Za-z_]\w*", str(error))
    hint = re.search(r'[Dd]id you mean "\w+"', str(error))
    return _exit(f"the config has no field {field[0] if field else error!r}{f'. {hint[0]}?' if hint else ''}")


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
  except OSError:  # a read-only home directory
    return
  os.environ["JAX_COMPILATION_CACHE_DIR"] = directory
  os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(4 * 2**30))


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
