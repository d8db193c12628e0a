"""Segmenters in weight files, in mmsegmentation's names."""

from flax import linen as nn

from mlpvision.models.heads import upernet
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights.dense_kinds import Classifier, Found, Kind, Shapes, outputs


def _find(shapes: Shapes) -> Found:
  classes = outputs(shapes, "decode_head/conv_seg/kernel")
  sizes = {"channels": shapes["decode_head/conv_seg/kernel"][0]}
  if "auxiliary_head/conv_seg/kernel" in shapes:
    sizes["auxiliary_channels"] = shapes["auxiliary_head/conv_seg/kernel"][0]
  return Found("upernet", classes, sizes)


KIND = Kind(
  noun="segmenter",
  module=upernet.UperNet,
  mark="decode_head.",
  parts=("pyramid", "decode_head", "auxiliary_head"),
  table=upernet.TABLE,
  find=_find,
  classifiers=(Classifier("(decode|auxiliary)_head/conv_seg", lambda classes: classes, nn.initializers.normal(0.01)),),
  # Of mmsegmentation's configs.
  preprocessing=Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", image_size=512, scale=(2048, 512)
  ),
)
