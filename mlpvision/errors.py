"""The exception for mistakes that the user can correct."""


class UserError(Exception):
  """The input is invalid; the message says what, where, and what to do. Commands print it and exit with code 2."""
