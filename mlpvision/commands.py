"""What all commands share: flags, and errors that a person can read."""

from collections.abc import Callable
import ctypes
import errno
import importlib
import importlib.util
import os
import re
import sys
import types
from typing import Any

from absl import app, flags, logging

from mlpvision.errors import UserError

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def run(main: Callable[[list[str]], None]) -> None:
  """Runs main(argv) under absl; a UserError becomes one message and exit code 2."""
  # TensorFlow, which only writes TensorBoard's files here, greets on stderr at length.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  keep_freed_memory()

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
      _exit(f"{error}. Make room there; a run is continued by the same command")
    except KeyboardInterrupt:
      _exit("interrupted", 130)

  app.run(guarded, flags_parser=_parse)


def read_config(holder: flags.FlagHolder) -> Any:
  """The value of a --config flag.

  Raises:
    UserError: the file does not exist, or does not run.
  """
  config = holder.value
  try:
    getattr(config, "data", None)  # the first access reports what went wrong in the file
  except OSError as error:
    raise UserError(_missing_config(error)) from error
  return config


def of_repository(name: str, what: str) -> types.ModuleType:
  """A module of the repository that the installed package does not have, such as "docs.tools.architecture".

  Raises:
    UserError: `what` needs it, and it cannot be imported from here.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != name.split(".")[0] and not name.startswith(f"{error.name}."):
      raise
    raise UserError(
      f"{what} needs {name.replace('.', '/')}.py, which comes with the repository, not with the installed package:"
      " start the command in its root"
    ) from error


def _missing_config(error):
  """What to say of a config file that cannot be read, or that imports the others. Raises what is none of this."""
  if isinstance(error, ModuleNotFoundError):
    if error.name != "configs":
      raise error
    problem = "there is no directory configs here"
  else:
    problem = str(error).splitlines()[-1].strip()  # of several lines, the one that names the file
  return f"--config: {problem}{_where_configs_are()}"


def _where_configs_are():
  if os.path.isdir("configs"):
    return ""
  return ". The configs come with the repository, not with the installed package: start the command in its root"


def _parse(argv):
  fields = [argument for argument in argv if re.match("--(no)?config\\.", argument)]
  if fields and not any(re.match("--?config(=|$)", argument) for argument in argv):
    return _exit(f"{fields[0]} changes a config: name it, --config=FILE{_where_configs_are()}")
  try:
    return app.parse_flags_with_usage(argv)
  except (OSError, ModuleNotFoundError) as error:
    return _exit(_missing_config(error))
  except (KeyError, AttributeError) as error:  # what ml_collections raises for a field that is not there
    field = re.search(r"[A-Za-z_]\w*", str(error))
    hint = re.search(r'[Dd]id you mean "\w+"', str(error))
    return _exit(f"the config has no field {field[0] if field else error!r}{f'. {hint[0]}?' if hint else ''}")


def _exit(message, code=2):
  print(f"error: {message}" if code == 2 else message, file=sys.stderr)
  sys.exit(code)


def keep_freed_memory() -> None:
  """Makes glibc keep what is freed, on machines where JAX computes on the CPU. Call it before JAX starts.

  XLA's CPU backend allocates its temporaries anew for every step. glibc gives blocks of that size back to the kernel at
  once, which then clears them page by page when they come again: two fifths of the quickstart's CPU time. From one
  heap that never shrinks they come ready. Where there is another C library, or an accelerator, nothing changes.
  """
  accelerator = any(importlib.util.find_spec(name) for name in ("libtpu", "jax_plugins"))
  if accelerator and os.environ.get("JAX_PLATFORMS") != "cpu":
    return
  set_option = getattr(ctypes.CDLL(None), "mallopt", None)
  if set_option is None:
    return
  # Blocks above 32 MiB are mapped whatever the threshold, and heaps of other arenas end at 64 MiB: so one arena.
  set_option(_M_ARENA_MAX, 1)
  set_option(_M_MMAP_MAX, 0)
  set_option(_M_TRIM_THRESHOLD, -1)  # never; the largest threshold is 2 GiB, and models free more
