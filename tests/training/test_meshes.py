"""One mathematics on any mesh: losses over some steps, with everything random switched on."""

import jax
import numpy as np
import pytest
from running import run

from mlpvision import sharding
from mlpvision.errors import UserError
from mlpvision.training import setup as setup_lib

_MODELS = {
  "s2mlp_wide": dict(num_blocks=2, hidden_dim=128, patch_size=8),
  "mixer_b16": dict(num_blocks=2, hidden_dim=128, patch_size=8, tokens_mlp_dim=64, channels_mlp_dim=512, remat="block"),
  "asmlp_tiny": dict(hidden_dim=64, depths=(1, 1), patch_size=2),
}
_LAST_BLOCK = {"s2mlp_wide": "block_1", "mixer_b16": "MixerBlock_1", "asmlp_tiny": "stage_1_block_0"}
_STEPS = 3
_SPLITS = {
  "8 fsdp": dict(data=1, fsdp=8),
  "4 fsdp x 2 model, accumulation 4": dict(data=1, fsdp=4, model=2, accumulation_steps=4),
  "2 data x 4 model": dict(data=2, model=4),
}


@pytest.fixture
def config(small_config):
  small_config.data.image_size = 32
  small_config.data.batch_size = 32
  small_config.optim.schedule.warmup = "0 steps"
  small_config.ema_decay = 0.9
  small_config.augment.update(flip=0.5, mixup=0.8, cutmix=1.0, random_erasing=0.25)
  return small_config


@pytest.mark.parametrize(
  ("model", "split"),
  [
    ("s2mlp_wide", "4 fsdp x 2 model, accumulation 4"),
    pytest.param("mixer_b16", "8 fsdp", marks=pytest.mark.slow),
    pytest.param("asmlp_tiny", "2 data x 4 model", marks=[pytest.mark.slow, pytest.mark.soak]),
  ],
)
def test_losses_do_not_depend_on_how_the_work_is_split(config, model, split):
  config.model = dict(name=model, dtype="float32", drop_path=0.3, **_MODELS[model])
  config.mesh.shard_update = False
  expected, reference = run(config, _STEPS)
  config.mesh.shard_update = True
  assert len(set(expected.tolist())) == _STEPS
  change = dict(_SPLITS[split])
  config.accumulation_steps = change.pop("accumulation_steps", 1)
  config.mesh.update(change)
  found, state = run(config, _STEPS)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), state.params, reference.params)
  for tree in (state.params, state.ema, state.opt_state[-1][0].mu):
    block = tree[_LAST_BLOCK[model]]["channel_mixing"]
    mesh = state.step.sharding.mesh.shape
    shards = [mesh["data"] * mesh["fsdp"], mesh["model"]]
    for i, of_axis in ((0, shards), (1, shards[::-1] if mesh["model"] > 1 else shards)):
      kernel = block[f"Dense_{i}"]["kernel"]
      assert kernel.sharding.shard_shape(kernel.shape) == tuple(np.floor_divide(kernel.shape, of_axis))


def test_a_rule_decides_alone(config):
  config.mesh.update(data=1, fsdp=4, model=2)
  config.model.hidden_dim = 128
  config.mesh.rules = ((r"block_0/channel_mixing/Dense_0/kernel$", (("fsdp", "model"), None)),)
  params = setup_lib.set_up(config).abstract.params
  kernels = [params["block_0"]["channel_mixing"][f"Dense_{i}"]["kernel"] for i in (0, 1)]
  assert [kernel.sharding.shard_shape(kernel.shape) for kernel in kernels] == [(16, 512), (256, 32)]


def test_a_large_leaf_is_cut_along_its_first_dimension_that_divides():
  mesh = sharding.make_mesh(data=2, fsdp=2, model=2)
  expected = {  # 2^16 elements are large
    (256, 256): ("fsdp", None),
    (255, 256): (None, None),
    (8, 512, 1024): ("fsdp", None, None),
    (3, 3, 512, 1023): (None, None, "fsdp", None),
    (1023, 1023): (None, None),
    (2**16,): ("fsdp",),
  }
  tree = {str(shape): jax.ShapeDtypeStruct(shape, np.float32) for shape in expected}
  found = sharding.tree_shardings(tree, mesh)
  both = sharding.tree_shardings(
    {"of both": jax.ShapeDtypeStruct((254, 1024), np.float32)}, mesh, over=("data", "fsdp")
  )
  assert both["of both"].spec == jax.sharding.PartitionSpec(None, ("data", "fsdp"))
  assert {name: sharding.spec for name, sharding in found.items()} == {
    str(shape): jax.sharding.PartitionSpec(*axes) for shape, axes in expected.items()
  }


def test_the_model_axis_cuts_the_hidden_channels_alone(config):
  config.mesh.update(data=1, fsdp=4, model=2)
  config.model.hidden_dim = 128
  params = setup_lib.set_up(config).abstract.params
  cut = {
    jax.tree_util.keystr(path, simple=True, separator="/"): x.sharding.spec
    for path, x in jax.tree_util.tree_leaves_with_path(params)
    if "model" in x.sharding.spec
  }
  spec = jax.sharding.PartitionSpec
  mlp = {
    "Dense_0/kernel": spec("fsdp", "model"),
    "Dense_0/bias": spec("model"),
    "Dense_1/kernel": spec("model", "fsdp"),
  }
  assert cut == {f"block_0/channel_mixing/{name}": axes for name, axes in mlp.items()}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.mesh.update(model=-1, fsdp=-1), "one of the three may be -1"),
    (lambda c: c.mesh.update(model=3), "does not fit 8 devices"),
    (lambda c: c.mesh.update(rules=(("stem/kernel", ("tensor",)),)), "stem/kernel.*cannot be sharded.*tensor"),
    (lambda c: c.mesh.update(rules=(("head/kernel", (None, "data")),)), "head/kernel.*cannot be sharded.*10"),
    (lambda c: (c.mesh.update(model=8), c.model.update(mlp_ratio=0.25)), "channel_mixing/Dense_0.*cannot be sharded"),
  ],
)
def test_invalid_shardings_are_refused(config, change, message):
  change(config)
  with pytest.raises(UserError, match=message):
    setup_lib.set_up(config)


@pytest.mark.parametrize("sharded", [dict(fsdp=8), dict(shard_update=True)])
def test_the_state_of_s2mlp_wide_is_cut_to_an_eighth(small_config, sharded):
  """Per device, arguments of the step for the full model with AdamW: at most 1/7 of data parallel."""
  small_config.model = dict(name="s2mlp_wide", dtype="float32", num_blocks=12, hidden_dim=768, patch_size=16)
  small_config.data.image_size = 224

  def argument_bytes(**axes):
    small_config.mesh.update(dict(data=-1, fsdp=1, shard_update=False) | axes)
    state = setup_lib.set_up(small_config).abstract
    return sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))

  assert argument_bytes(**sharded) < argument_bytes() / 7


@pytest.mark.parametrize("axes", [dict(), dict(fsdp=8), dict(fsdp=4, model=2)])
def test_only_the_data_axis_crosses_from_one_slice_to_another(axes, monkeypatch):
  """On the devices of two real TPU slices, which libtpu describes without a TPU."""
  pytest.importorskip("libtpu")
  from jax.experimental import topologies

  monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # another process may have loaded it
  devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4", num_slices=2).devices
  grid = np.vectorize(lambda device: device.slice_index)(sharding.make_mesh(devices=devices, **axes).devices)
  assert grid.size == 32
  halves = np.split(grid, 2, axis=0)
  assert [np.unique(half).tolist() for half in halves] == [[0], [1]]
  with pytest.raises(UserError, match="multiple of the 2 slices"):
    sharding.make_mesh(data=1, fsdp=32, devices=devices)
