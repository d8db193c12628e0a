"""The one exception for what its user can put right."""


class UserError(Exception):
  """Something given is wrong; the message says what, where and what to do. Commands print it and exit with 2."""
