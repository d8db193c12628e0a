"""What `loading.load` returns: a module, its parameters and information about them."""

import dataclasses
from typing import Any, Self

from flax import linen as nn

from mlpvision.preprocessing import Preprocessing
from mlpvision.weights import known, showing


@dataclasses.dataclass(frozen=True)
class Info:
  """How weights were loaded.

  Attributes:
    path: of the file.
    naming: the naming scheme of the file: "timm", "official", "mmdet", "npz", ...
    model_name, overrides: `models.create(model_name, num_classes=..., **overrides)` is the module.
    head: "file", "new" (initialized, because num_classes differs from the file's) or "none".
    preprocessing: that the weights expect; None if unknown.
    entry: in `known.KNOWN`, if loaded by name.
    on_imagenet: whether the head has ImageNet's classes in their order, as that of known weights and of files whose
      config.json says so.
    class_names: of the head, if it is the file's and the file has them.
    ema: of a training checkpoint with weights and their average: whether these are the average; otherwise None.
  """

  path: str
  naming: str
  model_name: str
  overrides: dict
  head: str
  preprocessing: Preprocessing | None = None
  entry: known.Known | None = None
  class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
  ema: bool | None = None
  on_imagenet: bool = False

  @property
  def source(self) -> str:
    """The name of known weights, or the path."""
    return self.entry.name if self.entry else self.path


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Loaded(tuple[nn.Module, dict[str, Any], Info]):
  """A module with its parameters; `module, params, info = loaded` unpacks it, with these types.

  params: nested dict of float32 NumPy arrays; stats: {"batch_stats": such a dict}, or {}.
  """

  module: nn.Module
  params: dict[str, Any]
  info: Info
  stats: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __new__(cls, module: nn.Module, params: dict[str, Any], info: Info, stats: dict[str, Any] | None = None) -> Self:
    del stats
    return super().__new__(cls, (module, params, info))

  def __getnewargs__(self) -> tuple[Any, ...]:
    return tuple(self)

  def __repr__(self) -> str:
    return showing.line("Loaded", self.info.model_name, self.module, self.params, self.info.source)

  def _repr_html_(self) -> str:
    info = self.info
    about = (info.source, info.preprocessing, info.class_names)
    return showing.table(info.model_name, self.module, self.params, *about)

  @property
  def variables(self) -> dict[str, Any]:
    """For `module.apply`."""
    return {"params": self.params, **self.stats}
