from mlpvision.errors import UserError


def parse(spec, fill):
  raise UserError("stub")
