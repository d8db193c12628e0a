"""Published weights into our parameters, and ours out again.

`load("mixer_b16.goog_in1k")` fetches by name, once; `load("as_tiny.pth", num_classes=10)` reads a file and makes a
new head; both give the module, its parameters and what is known about them. `save("mine.safetensors", module, params)`
writes them under timm's or the official code's names.
"""

from mlpvision.weights.errors import WeightsError
from mlpvision.weights.known import KNOWN, Known, Preprocessing
from mlpvision.weights.loading import Info, Loaded, load
from mlpvision.weights.saving import save

__all__ = ["KNOWN", "Info", "Known", "Loaded", "Preprocessing", "WeightsError", "load", "save"]
