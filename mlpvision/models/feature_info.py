"""Strides and widths of a backbone's maps, in the form in which timm's models give theirs."""


class FeatureInfo(tuple[dict[str, int], ...]):
  """{"num_chs": channels, "reduction": stride in pixels, "index": number} of each map of `Backbone.features`.

  timm's also have the name of the module whose output a map is; here, `features` makes them.
  """

  def channels(self) -> list[int]:
    """The channels of each map."""
    return [info["num_chs"] for info in self]

  def reduction(self) -> list[int]:
    """The image pixels per position of each map."""
    return [info["reduction"] for info in self]
