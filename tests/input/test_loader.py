"""The digits, and the promise that the images of a step depend on (seed, step) alone."""

import collections

import numpy as np
import pytest

from mlpvision.data import datasets, loader, transforms
from mlpvision.errors import UserError


@pytest.fixture(scope="module")
def train_split(data_dir):
  return datasets.open_split("mnist5k", "train", str(data_dir))


@pytest.fixture(scope="module")
def few(data_dir):
  """400 images: ten steps are an epoch."""
  return datasets.open_split("mnist5k", "train[:10%]", str(data_dir))


@pytest.fixture(scope="module")
def test_split(data_dir):
  return datasets.open_split("mnist5k", "test", str(data_dir))


def _take(batches, count):
  return [next(batches) for _ in range(count)]


def _same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_digits_are_stratified_and_disjoint(train_split, test_split):
  assert (len(train_split), len(test_split)) == (4000, 1000)
  assert train_split.class_names == tuple("0123456789")
  examples = {name: [s.source[i] for i in range(len(s))] for name, s in (("train", train_split), ("test", test_split))}
  for name, each in (("train", 400), ("test", 100)):
    assert collections.Counter(e["label"] for e in examples[name]) == dict.fromkeys(range(10), each)
  assert len({e["image"] for e in examples["train"] + examples["test"]}) > 4990  # a handful of digits are duplicates


def test_train_batches(train_split, small_config):
  batch = next(loader.train_batches(train_split, small_config, start_step=0))
  assert batch["image"].shape == (40, 28, 28, 3)
  assert batch["image"].dtype == np.uint8
  assert batch["label"].dtype == np.int32
  assert batch["replaced"].dtype == bool
  assert not batch["replaced"].any()
  assert set(batch) == {"image", "label", "replaced"}


@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (2, 2), (3, 1), (3, 3)])
@pytest.mark.parametrize("images", ["train[:1]", "train[:2]"])
def test_smallest_batches(data_dir, small_config, images, batch_size, hosts):
  """One row per host, and batches that are larger than the data."""
  split = datasets.open_split("mnist5k", images, str(data_dir))
  small_config.data.batch_size = batch_size
  parts = [
    loader.train_batches(split, small_config, start_step=2, process_index=host, process_count=hosts)
    for host in range(hosts)
  ]
  for step in (2, 3):
    labels = np.concatenate([next(part)["label"] for part in parts])
    indices = loader.image_indices(split, small_config, step)
    np.testing.assert_array_equal(labels, [split.source[i]["label"] for i in indices])


def test_the_images_of_a_step_can_be_told(train_split, small_config):
  small_config.augment.repeats = 3
  batch = next(loader.train_batches(train_split, small_config, start_step=130))
  indices = loader.image_indices(train_split, small_config, 130)
  assert [train_split.source[i]["label"] for i in indices] == batch["label"].tolist()


@pytest.mark.parametrize(
  ("given", "cores", "expected"),
  [(-1, 1, 0), (-1, 4, 0), (-1, 5, 5), (-1, 16, 16), (-1, 208, 208), (0, 64, 0), (3, 2, 3)],
)
def test_workers_by_the_number_of_cores(small_config, monkeypatch, given, cores, expected):
  monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
  small_config.data.workers = given
  assert loader.num_workers(small_config) == expected


@pytest.mark.parametrize(
  ("given", "workers", "data", "expected"),
  [
    (-1, 2, dict(data_dir="/data"), 2),
    (-1, 0, dict(data_dir="/data"), 3),
    (-1, 112, dict(data_dir="gs://bucket/tfds"), 3584),
    (-1, 2, dict(data_dir="gs://bucket/tfds", name="folder:/data"), 2),
    (-1, 2, dict(name="s3://bucket/tfds/set/1.0.0"), 64),
    (5, 2, dict(data_dir="gs://bucket/tfds"), 5),
  ],
)
def test_reads_by_the_path(small_config, monkeypatch, given, workers, data, expected):
  monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
  small_config.data.update(reads=given, workers=workers, **data)
  assert loader.num_reads(small_config) == expected


def test_resuming_at_any_step_gives_the_same_batches(few, small_config):
  whole = _take(loader.train_batches(few, small_config, start_step=0), 25)  # beyond two epochs
  for start in (1, 9, 10, 23):
    resumed = _take(loader.train_batches(few, small_config, start_step=start), 2)
    _same(whole[start], resumed[0])
    _same(whole[start + 1], resumed[1])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_global_batch(train_split, small_config, hosts):
  (whole,) = _take(loader.train_batches(train_split, small_config, start_step=150), 1)
  parts = [
    next(loader.train_batches(train_split, small_config, start_step=150, process_index=i, process_count=hosts))
    for i in range(hosts)
  ]
  _same(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


@pytest.mark.parametrize(("workers", "reads", "hosts"), [(3, 1, 1), (1, 7, 2), (0, 50, 1)])
def test_resuming_with_other_workers_reads_and_hosts_gives_the_same_bytes(
  train_split, small_config, workers, reads, hosts
):
  small_config.augment.repeats = 3
  small_config.augment.randaugment = "rand-m9-mstd0.5-inc1"
  whole = _take(loader.train_batches(train_split, small_config, start_step=98), 5)  # into the next epoch
  small_config.data.workers, small_config.data.reads = workers, reads
  parts = [
    _take(loader.train_batches(train_split, small_config, start_step=100, process_index=i, process_count=hosts), 3)
    for i in range(hosts)
  ]
  for step, batch in enumerate(whole[2:]):
    _same(batch, {name: np.concatenate([part[step][name] for part in parts]) for name in batch})


def test_an_epoch_has_every_image_once_and_the_next_another_order(few, small_config):
  small_config.augment.crop = "center"
  batches = _take(loader.train_batches(few, small_config, start_step=0), 20)
  epochs = [np.concatenate([b["image"] for b in batches[i : i + 10]]) for i in (0, 10)]
  sets = [collections.Counter(image.tobytes() for image in epoch) for epoch in epochs]
  assert sets[0] == sets[1]
  assert sets[0] == collections.Counter(transforms.decode(few.source[i]["image"]).tobytes() for i in range(400))
  assert not np.array_equal(*epochs)


def test_another_seed_gives_another_order(train_split, small_config):
  a = next(loader.train_batches(train_split, small_config, start_step=0))
  small_config.seed = 1
  b = next(loader.train_batches(train_split, small_config, start_step=0))
  assert not np.array_equal(a["label"], b["label"])


@pytest.mark.parametrize(
  ("batch_size", "hosts", "devices"), [(256, 1, 1), (7, 1, 1), (64, 2, 8), (1000, 4, 8), (3, 2, 4)]
)
def test_evaluation_sees_every_image_once_in_order(test_split, small_config, batch_size, hosts, devices):
  small_config.eval.batch_size = batch_size
  per_host = [
    list(loader.eval_batches(test_split, small_config, device_count=devices, process_index=i, process_count=hosts))
    for i in range(hosts)
  ]
  assert len({len(batches) for batches in per_host}) == 1
  assert any(batches[-1]["mask"].any() for batches in per_host)  # none is empty on all hosts
  assert all(len(b["mask"]) * hosts % devices == 0 for batches in per_host for b in batches)
  rows = [b for step in zip(*per_host, strict=True) for b in step]
  labels = np.concatenate([b["label"][b["mask"]] for b in rows])
  np.testing.assert_array_equal(labels, [test_split.source[i]["label"] for i in range(1000)])


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path):
  with pytest.raises(UserError, match=r"(?s)ILSVRC2012_img_train\.tar.*mlpvision\.prepare imagenet2012 "):
    datasets.check("imagenet2012", str(tmp_path))
  with pytest.raises(UserError, match=r"(?s)winter21_whole\.tar\.gz.*mlpvision\.prepare imagenet21k/winter21_256 "):
    datasets.check("imagenet21k/winter21_256", str(tmp_path))
  with pytest.raises(UserError, match="no split 'tset'; it has train, test"):
    datasets.open_split("mnist5k", "tset", None)


def test_a_prepared_directory_is_found_by_name_version_and_path(train_split, data_dir, tmp_path):
  (tmp_path / "copy").symlink_to(data_dir / "mnist5k")
  for name in ("copy", "copy:1.*.*", "copy:1.0.0", str(data_dir / "mnist5k" / "1.0.0")):
    assert len(datasets.open_split(name, "train[:10%]", str(tmp_path))) == 400
  with pytest.raises(UserError, match="copy:2"):
    datasets.open_split("copy:2.*.*", "train", str(tmp_path))
