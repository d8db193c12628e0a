"""Weight files of detectors, in mmdetection's names: read, written, and refused if they are damaged."""

import functools
import json
import pathlib

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
import torch_files

from mlpvision import models, tasks, weights
from mlpvision.models.detection import names
from mlpvision.weights import files

_DATA = pathlib.Path(__file__).parents[1] / "data"
_SMALL = dict(channels=8, head_dim=24)
_BACKBONES = {
  "asmlp_tiny": dict(hidden_dim=8, depths=(1, 1, 1, 1)),
  "swin_tiny": dict(hidden_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4),
  "s2mlp_wide": dict(hidden_dim=32, num_blocks=1, patch_size=16),
}


@functools.cache
def _detector(name, backbone, **options):
  """(module, random variables)."""
  module = models.create(name, backbone=backbone, **{**_SMALL, "num_classes": 5, **_BACKBONES[backbone], **options})
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  rng = np.random.default_rng(0)
  return module, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), dict(shapes))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  """The path of a Mask R-CNN."""
  module, variables = _detector("mask_rcnn", "asmlp_tiny")
  path = tmp_path_factory.mktemp("detectors") / "detector.safetensors"
  weights.save(path, module, variables["params"])
  return path


@pytest.mark.parametrize(
  ("name", "backbone", "options"),
  [
    ("mask_rcnn", "s2mlp_wide", dict(test_proposals=20, pre_nms=(7, 9), score_threshold=0.2)),
    ("cascade_mask_rcnn", "swin_tiny", dict(masks=False)),
  ],
)
def test_round_trip(name, backbone, options, tmp_path):
  module, variables = _detector(name, backbone, **options)
  path = tmp_path / "detector.safetensors"
  weights.save(path, module, variables["params"], class_names=list("abcde"), stats=variables)
  loaded = weights.load(path)
  assert loaded.module == module
  assert (loaded.info.naming, loaded.info.class_names) == ("mmdet", tuple("abcde"))
  assert loaded.info.preprocessing.scale == (1333, 800)
  before, after = flatten_dict(variables), flatten_dict(loaded.variables)
  assert before.keys() == after.keys()
  assert all(np.array_equal(before[key], after[key]) for key in before)
  assert tasks.name_of(loaded.module) == "detection"


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade_mask_rcnn"])
def test_a_checkpoint_of_mmdetection(name, tmp_path):
  """Its heads are mmdetection's; the convolutions on the maps are of a backbone's widths."""
  golden = dict(np.load(_DATA / f"{name}.npz"))
  of_heads = {key: array for key, array in golden.items() if key.startswith(("neck.", "rpn_head.", "roi_head."))}
  module, variables = _detector(name, "asmlp_tiny")
  weights.save(tmp_path / "x.safetensors", module, variables["params"], stats=variables)
  arrays = load_file(tmp_path / "x.safetensors")
  assert {key for key in arrays if not key.startswith("backbone.")} == of_heads.keys()
  arrays |= {key: array for key, array in of_heads.items() if not key.startswith("neck.lateral_convs.")}
  arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
  torch_files.write(tmp_path / "x.pth", {"meta": {"epoch": 36}, "state_dict": arrays, "optimizer": {}})
  loaded = weights.load(tmp_path / "x.pth", name)
  assert loaded.module == module
  flat = flatten_dict(loaded.params, sep="/") | flatten_dict(loaded.stats.get("batch_stats", {}), sep="/")
  for key, array in arrays.items():
    if not key.startswith("backbone."):
      path, transform = names.TABLE.ours(key)
      assert np.array_equal(flat[path], transform(array)), key


def test_other_classes_get_new_classifiers(file):
  before, loaded = weights.load(file), weights.load(file, num_classes=3, detections=7)
  assert (loaded.info.head, loaded.module.num_classes, loaded.module.detections) == ("new", 3, 7)
  old, new = (flatten_dict(found.params, sep="/") for found in (before, loaded))
  changed = {path: array.shape for path, array in new.items() if not np.array_equal(old[path], array)}
  assert changed == {
    "bbox_head/fc_cls/kernel": (24, 4), "bbox_head/fc_cls/bias": (4,),
    "bbox_head/fc_reg/kernel": (24, 12), "bbox_head/fc_reg/bias": (12,),
    "mask_head/conv_logits/kernel": (8, 3), "mask_head/conv_logits/bias": (3,),
  }  # fmt: skip
  for name, std in (("bbox_head/fc_cls", 0.01), ("bbox_head/fc_reg", 0.001), ("mask_head/conv_logits", (2 / 3) ** 0.5)):
    assert 0.5 * std < new[f"{name}/kernel"].std() < 1.5 * std
    assert not new[f"{name}/bias"].any()


def _without(*starts):
  return lambda arrays: {key: array for key, array in arrays.items() if not key.startswith(starts)}


def _with(key, *shape):
  return lambda arrays: {**arrays, key: np.zeros(shape, np.float32)}


_FC = "roi_head.bbox_head.shared_fcs.0.weight"
WRONG = {
  "no box head": (_without("roi_head.bbox_head"), r"lacks .* sizes of TwoStage.*bbox_head/fc_cls"),
  "no classes": (_with("roi_head.bbox_head.fc_cls.weight", 1, 24), "no class beside the background"),
  "no channels": (_with("neck.lateral_convs.0.conv.weight", 0, 8, 1, 1), "neck/lateral_convs_0/kernel has shape"),
  "no width": (_with(_FC, 0, 392), "shared_fcs.0.weight has shape .0, 392., which is impossible"),
  "no axes": (_with(_FC), "shared_fcs.0.weight has shape .., which is impossible"),
  "not 7 x 7": (_with(_FC, 24, 391), "shared_fcs.0.weight has shape .24, 391., which is impossible"),
  "no matrix": (_with("roi_head.bbox_head.fc_cls.weight", 6), "fc_cls/kernel has shape .6,."),
  "no convolution": (_with("rpn_head.rpn_cls.weight", 3, 8), "rpn_cls.weight has shape .3, 8., which is impossible"),
  "no transposed convolution": (_with("roi_head.mask_head.upsample.weight", 8), "upsample.weight has shape .8,."),
  "many blocks": (_with("backbone.layers.0.blocks.999999999.norm1.weight", 8), "blocks in 4 stages do not fit"),
  "another backbone": (_without("backbone."), "a detector on an unknown backbone"),
  "strangers": (_with("roi_head.mask_iou_head.fc.weight", 3, 3), "unknown arrays"),
  "segmenter too": (_with("decode_head.conv_seg.weight", 5, 8, 1, 1), "a segmenter and of a detector"),
  "twice": (_with("ema.rpn_head.rpn_cls.bias", 3), "which are the same parameter"),
  "heads of both": (_with("roi_head.bbox_head.1.fc_cls.weight", 6, 24), "bbox_head_0/fc_cls"),
  "other widths": (_with("roi_head.bbox_head.fc_reg.weight", 24, 24), "fc_reg/kernel: .24, 24. in the file"),
  "half a mask head": (_without("roi_head.mask_head.conv_logits"), "conv_logits/kernel: missing"),
  "no pyramid": (_without("backbone.norm3"), "pyramid/norm3/scale: missing"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_files(wrong, file, tmp_path):
  change, message = WRONG[wrong]
  save_file(change(load_file(file)), tmp_path / "x.safetensors")
  with pytest.raises(weights.WeightsError, match=message):
    weights.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(head_options={"detections": 10**6}), "detections=1000000, but at most"),
    (dict(head_options={"backbone": "asmlp_tiny"}), "no option 'backbone'"),
    (dict(head_options={"pre_nms": [5, -1]}), "pre_nms"),
    (dict(head_options=[1]), "not a JSON object"),
    (dict(class_names=["a"]), "1 class names for a head of 5"),
    (dict(preprocessing=dict(mean=[0.5] * 3, std=[0.5] * 3)), "without the scale of a detector"),
  ],
)
def test_wrong_metadata(change, message, file, tmp_path):
  about = json.loads(files.WeightFile(file).metadata["mlpvision"])
  save_file(load_file(file), tmp_path / "x.safetensors", {"mlpvision": json.dumps({**about, **change})})
  with pytest.raises(weights.WeightsError, match=message):
    weights.load(tmp_path / "x.safetensors")


def test_mistakes_are_named(file):
  with pytest.raises(weights.WeightsError, match="weights of mask_rcnn, not of cascade_mask_rcnn"):
    weights.load(file, "cascade_mask_rcnn")
  with pytest.raises(weights.WeightsError, match="no features without its classes"):
    weights.load(file, num_classes=None)
