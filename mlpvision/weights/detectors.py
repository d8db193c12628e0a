"""Detectors in weight files, in mmdetection's names."""

from flax import linen as nn

from mlpvision.models.detection import names, two_stage
from mlpvision.preprocessing import Preprocessing
from mlpvision.weights.dense_kinds import Classifier, Found, Kind, Shapes, outputs


def _find(shapes: Shapes) -> Found:
  # A cascade's heads have numbers.
  is_cascade = any(path.startswith("bbox_head_") for path in shapes)
  box_head = "bbox_head_0" if is_cascade else "bbox_head"
  classes = outputs(shapes, f"{box_head}/fc_cls/kernel") - 1
  if classes < 1:
    raise ValueError(f"{box_head}/fc_cls has no class beside the background")
  sizes = {
    "channels": outputs(shapes, "neck/lateral_convs_0/kernel"),
    "head_dim": outputs(shapes, f"{box_head}/shared_fcs_0/kernel"),
    "masks": any(path.startswith("mask_head") for path in shapes),
  }
  return Found("cascade_mask_rcnn" if is_cascade else "mask_rcnn", classes, sizes)


_normal = nn.initializers.normal

KIND = Kind(
  noun="detector",
  module=two_stage.TwoStage,
  mark="rpn_head.",
  parts=("pyramid", "neck", "rpn_head", "roi_head"),
  table=names.TABLE,
  find=_find,
  # Initialized as the modules do.
  classifiers=(
    Classifier(r"bbox_head(_\d+)?/fc_cls", lambda classes: classes + 1, _normal(0.01)),
    Classifier(r"bbox_head(_\d+)?/fc_reg", lambda classes: 4 * classes, _normal(0.001)),
    Classifier(
      r"mask_head(_\d+)?/conv_logits",
      lambda classes: classes,
      nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    ),
  ),
  # Of mmdetection's configs.
  preprocessing=Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", scale=(1333, 800)
  ),
)
