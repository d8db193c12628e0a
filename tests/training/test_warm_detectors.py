"""Warm starts of detectors, and from detectors: what is taken over from which model."""

import functools

from flax.traverse_util import flatten_dict
import jax
import numpy as np
import pytest

from configs import quickstart, quickstart_detection, quickstart_segmentation
from mlpvision import sharding, tasks, trained, weights
from mlpvision.errors import UserError
from mlpvision.training import warm_start

_BACKBONE = dict(hidden_dim=8, depths=(1, 1, 1, 1))
_TEN = tuple("0123456789")


def _config(kind):
  if kind == "classifier":
    config = quickstart.get_config()
    config.model = {"name": "asmlp_tiny", "dtype": "float32", **_BACKBONE}
    config.data.image_size = 32
    return config
  if kind == "segmenter":
    config = quickstart_segmentation.get_config()
    config.model.update(**_BACKBONE, channels=8, auxiliary_channels=8)
    return config
  config = quickstart_detection.get_config()
  config.model.update(**_BACKBONE, channels=8, head_dim=16)
  if kind == "cascade":
    config.model.name = "cascade_mask_rcnn"
    with config.unlocked():
      config.model.masks = False
  return config


@functools.cache
def _shapes(kind, classes):
  """The shapes of a model's variables."""
  model = tasks.make_model(_config(kind), classes)
  return dict(jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)))


def _source(kind, names=_TEN):
  config, rng = _config(kind), np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), _shapes(kind, len(names)))
  model = tasks.make_model(config, len(names))
  return trained.Trained(model, variables, None, names, config.model.name, config=config, step=3)


def _start(source, kind, names=_TEN):
  """(loaded, text) of a run of this kind that starts from a source; checked against the source."""
  config = _config(kind)
  config.init_from = "source"
  config = warm_start.completed(config, source)
  shapes = _shapes(kind, len(names))
  loaded, text = warm_start.parameters(config, source, shapes["params"], names)
  own = flatten_dict(shapes["params"], sep="/")
  theirs = flatten_dict(source.params, sep="/")
  stats = flatten_dict(source.variables.get("batch_stats", {}), sep="/")
  theirs |= {f"batch_stats/{path}": x for path, x in stats.items()}
  if source.task is tasks.classification:
    theirs = {f"backbone/{path}": x for path, x in theirs.items()}
  for path, array in loaded.items():
    np.testing.assert_array_equal(array, theirs[path], err_msg=path)
    assert path in own or path.startswith("batch_stats/")
  return loaded, text, {path for path in own if path not in loaded}


def _parts(paths):
  return {path.partition("/")[0] for path in paths}


def test_from_a_classifier():
  loaded, text, new = _start(_source("classifier"), "detector")
  assert _parts(loaded) == {"backbone"}
  assert _parts(new) == {"pyramid", "neck", "rpn_head", "bbox_head", "mask_head"}
  assert "new: " in text
  assert "note" not in text  # of the same number of classes, which do not matter


def test_from_a_segmenter_and_back():
  loaded, text, new = _start(_source("segmenter"), "detector")
  assert _parts(loaded) == {"backbone", "pyramid"}
  assert _parts(new) == {"neck", "rpn_head", "bbox_head", "mask_head"}
  assert "neck/..." in text
  assert "note" not in text
  loaded, _, new = _start(_source("cascade"), "segmenter")
  assert _parts(loaded) == {"backbone", "pyramid"}
  assert _parts(new) == {"decode_head", "auxiliary_head"}


def test_from_a_detector():
  source = _source("detector")
  loaded, text, new = _start(source, "detector")
  assert not new
  assert "new: none" in text
  _, text, new = _start(source, "detector", ("one", "two"))
  layers = ("bbox_head/fc_cls", "bbox_head/fc_reg", "mask_head/conv_logits")
  assert new == {f"{name}/{leaf}" for name in layers for leaf in ("kernel", "bias")}
  _, text, new = _start(source, "detector", tuple("abcdefghij"))
  assert len(new) == 6
  assert "the head of these weights is not used: its class 0 is '0', and 'a' here" in text


def test_from_a_detector_with_other_heads():
  loaded, _, new = _start(_source("detector"), "cascade")
  assert _parts(loaded) == {"backbone", "pyramid", "neck", "rpn_head"}
  assert _parts(new) == {"bbox_head_0", "bbox_head_1", "bbox_head_2"}
  loaded, _, new = _start(_source("cascade"), "cascade")
  assert not new
  assert "batch_stats" in _parts(loaded)
  loaded, _, _ = _start(_source("cascade"), "detector")
  assert "batch_stats" not in _parts(loaded)


def test_options_that_the_config_lacks_are_those_of_the_weights():
  config = _config("detector")
  for name in ("channels", "head_dim", "hidden_dim", "depths", "detections"):
    del config.model[name]
  model = warm_start.completed(config, _source("detector")).model
  assert (model.channels, model.head_dim, model.hidden_dim, model.depths) == (8, 16, 8, (1, 1, 1, 1))
  assert "detections" not in model
  model = warm_start.completed(config, _source("segmenter")).model
  assert (model.hidden_dim, model.depths) == (8, (1, 1, 1, 1))
  assert "channels" not in model


def test_parameters_that_do_not_fit():
  source, config = _source("detector"), _config("detector")
  config.update(init_from="source")
  config.model.channels = 16
  model = tasks.make_model(config, 10)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  with pytest.raises(UserError, match=r"(?s)does not fit mask_rcnn.*would fit with --config.model.channels=8$"):
    warm_start.parameters(config, source, shapes["params"], _TEN)


def test_weights_of_another_model_are_refused(tmp_path):
  source = _source("detector")
  weights.save(tmp_path / "x.safetensors", source.model, source.params)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  for kind, backbone, message in (
    ("classifier", None, "is a MaskRCNN on ASMLP, but model.name=asmlp_tiny is a ASMLP"),
    ("detector", "swin_tiny", "is a MaskRCNN on ASMLP, but model.backbone=swin_tiny is a Swin"),
  ):
    config = _config(kind)
    config.init_from = str(tmp_path / "x.safetensors")
    if backbone:
      config.model.backbone = backbone
      del config.model.hidden_dim, config.model.depths
    with pytest.raises(UserError, match=message):
      warm_start.open_source(config, mesh, _TEN)
  config = _config("detector")
  config.init_from = str(tmp_path / "x.safetensors")
  found = warm_start.open_source(config, mesh, ("a", "b"))
  _, _, new = _start(found, "detector", ("a", "b"))
  assert _parts(new) == {"bbox_head", "mask_head"}
