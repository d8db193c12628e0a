"""MLP vision models in JAX/Flax: train, evaluate and take them apart, from a laptop to a TPU pod.

```
import mlpvision

trained = mlpvision.load("mixer_b16.goog_in1k")  # a published name, a weight file, or a run's workdir
trained.predict("photo.jpg")
model, params = trained
```
"""

from mlpvision.library import list_models, list_weights, load

__all__ = ["list_models", "list_weights", "load"]
