"""The names of mmdetection's state dicts for `two_stage`'s detectors, other than their backbones'."""

from mlpvision.models import pyramid
from mlpvision.models.detection import box_head
from mlpvision.models.heads import fpn, upernet
from mlpvision.models.naming import CONV, CONV1X1, DENSE, Leaf, Table

_BIAS = DENSE[1]
# A layer after RoIs, which are flattened with channels first there.
_ROI_DENSE = (
  Leaf(
    "weight",
    "kernel",
    lambda a: a.reshape(a.shape[0], -1, box_head.BINS, box_head.BINS).transpose(2, 3, 1, 0),
    lambda a: a.transpose(3, 2, 0, 1).reshape(a.shape[3], -1),
  ),
  _BIAS,
)
# A transposed convolution: (in, out, height, width).
_UPSAMPLING = (Leaf("weight", "kernel", lambda a: a.transpose(0, 2, 3, 1), lambda a: a.transpose(0, 3, 1, 2)), _BIAS)


def _heads(theirs, ours):
  """Rows of one stage: the end of "roi_head.bbox_head" in a file and of "bbox_head" here."""
  boxes, masks = f"roi_head.bbox_head{theirs}", f"roi_head.mask_head{theirs}"
  return (
    (f"{boxes}.shared_convs.{{i}}.conv", f"bbox_head{ours}/shared_convs_{{i}}/conv", CONV[:1]),
    (f"{boxes}.shared_convs.{{i}}.bn", f"bbox_head{ours}/shared_convs_{{i}}/bn", upernet.BATCH_NORM),
    (f"{boxes}.shared_fcs.0", f"bbox_head{ours}/shared_fcs_0", _ROI_DENSE),
    (f"{boxes}.shared_fcs.{{i}}", f"bbox_head{ours}/shared_fcs_{{i}}", DENSE),
    (f"{boxes}.fc_cls", f"bbox_head{ours}/fc_cls", DENSE),
    (f"{boxes}.fc_reg", f"bbox_head{ours}/fc_reg", DENSE),
    (f"{masks}.convs.{{i}}.conv", f"mask_head{ours}/convs_{{i}}", CONV),
    (f"{masks}.upsample", f"mask_head{ours}/upsample", _UPSAMPLING),
    (f"{masks}.conv_logits", f"mask_head{ours}/conv_logits", CONV1X1),
  )


TABLE = Table(
  "mmdet",
  (
    *fpn.TABLE.rows,
    ("rpn_head.rpn_conv", "rpn_head/rpn_conv", CONV),
    ("rpn_head.rpn_cls", "rpn_head/rpn_cls", CONV1X1),
    ("rpn_head.rpn_reg", "rpn_head/rpn_reg", CONV1X1),
    *_heads("", ""),
    *_heads(".{s}", "_{s}"),
    *pyramid.ROWS,
  ),
  ignore=r"num_batches_tracked$",
)
