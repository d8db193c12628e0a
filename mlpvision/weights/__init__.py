"""Loads and saves weights in published formats.

`load("mixer_b16.goog_in1k")` downloads known weights once; `load("as_tiny.pth", num_classes=10)` reads a file and
creates a new head. Both return the module, its parameters and information about them. `save("mine.safetensors",
module, params)` writes parameters with the names of timm or the official code.
"""

from mlpvision.weights.errors import WeightsError
from mlpvision.weights.known import KNOWN, Known, Preprocessing
from mlpvision.weights.loaded import Info, Loaded
from mlpvision.weights.loading import load
from mlpvision.weights.saving import save

__all__ = ["KNOWN", "Info", "Known", "Loaded", "Preprocessing", "WeightsError", "load", "save"]
