"""Imported by every Python with this folder on PYTHONPATH: an attempt to reach the network is an error."""

import sys

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse(event, args):
  if event in ("socket.getaddrinfo", "socket.gethostbyname"):
    host = args[0]
  elif event == "socket.connect" and isinstance(args[1], tuple):
    host = args[1][0]
  else:
    return
  if host is not None and not str(host).startswith(_LOCAL):
    raise RuntimeError(f"network access is blocked in tests: {event} {host}")


sys.addaudithook(_refuse)
