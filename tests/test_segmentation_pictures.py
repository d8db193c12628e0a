"""What a person sees of a segmenter: maps, overlays, contact sheets, curves, confusion, exports; what is refused."""

import io
import json
import os

import jax
import jax.export
import numpy as np
from PIL import Image
import pytest

from configs import quickstart
import mlpvision
from mlpvision import augment, models, preprocessing, weights
from mlpvision.data import datasets, transforms
from mlpvision.draw import maps
from mlpvision.errors import UserError
from mlpvision.evaluate import confusion, evaluators, run as run_lib
from mlpvision.export import formats
from mlpvision.reporting import curves, label_maps, palette
from mlpvision.tasks import segmentation


@pytest.fixture(scope="module")
def trained(segmenter):
  """The tiny segmenter with a random classifier, which sees all classes."""
  found = mlpvision.load(segmenter)
  kernel = found.params["decode_head"]["conv_seg"]["kernel"]
  kernel = kernel + np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)
  head = found.params["decode_head"] | {"conv_seg": {"kernel": kernel, "bias": np.zeros(len(found.class_names))}}
  found.variables["params"]["decode_head"] = head
  return found


@pytest.fixture(scope="module")
def split(scenes):
  return datasets.open_split("digit_scenes", "test", scenes, task="segmentation")


def test_colors_are_distinct_and_do_not_depend_on_their_number():
  colors = palette.colors()
  assert (colors.shape, colors.dtype) == ((255, 3), np.uint8)
  assert colors[0].tolist() == [0xE6, 0x9F, 0x00]
  assert len({tuple(color) for color in colors}) == 255
  for count, least in ((21, 0.07), (150, 0.02)):
    views = palette.seen(colors[:count])  # also by eyes without red or green cones
    apart = np.linalg.norm(views[:, :, None] - views[:, None], axis=-1).min(0)
    assert apart[~np.eye(count, dtype=bool)].min() > least


def test_an_overlay_has_the_classes_colors_and_ignored_pixels_have_none():
  labels = np.zeros((24, 24), np.uint8)
  labels[12:], labels[:, 12:] = 3, 255
  for gray in (0.0, 1.0):
    found = label_maps.overlay(np.full((24, 24, 3), gray), labels)
    np.testing.assert_allclose(found[0, 0], 0.4 * gray + 0.6 * palette.colors()[0] / 255)
    np.testing.assert_allclose(found[-1, 0], 0.4 * gray + 0.6 * palette.colors()[3] / 255)
    ignored = found[:, 12:]
    assert len(np.unique(ignored)) == 2  # stripes
    assert (ignored == ignored[..., :1]).all()


def test_a_map_is_written_as_its_indices():
  labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
  image = Image.open(io.BytesIO(label_maps.to_indexed_png(labels)))
  assert image.mode == "P"
  np.testing.assert_array_equal(np.asarray(image), labels)
  np.testing.assert_array_equal(np.asarray(image.convert("RGB")).reshape(-1, 3)[:255], palette.colors())


def test_an_overlay_names_any_class():
  areas = [(0, "$x^2$ \udcff", 0.5), (1, "漢字 " * 20, 0.25), *((i, f"class {i}", 0.01) for i in range(2, 60))]
  data = label_maps.to_overlay_png(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), areas)
  picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  assert picture.shape[1] > 380
  assert (picture == palette.colors()[1]).all(-1).any()  # in the legend alone


def test_a_prediction_is_written(trained, split, tmp_path):
  (tmp_path / "scene.jpg").write_bytes(split.source[0]["image"])
  path = str(tmp_path / "scene.jpg")
  files = label_maps.file_names({path: "scene.jpg"}, str(tmp_path / "maps"))[path]
  image, (found,) = transforms.decode(split.source[0]["image"]), trained.predict(path)
  label_maps.write(files, image, found)
  assert [*map(os.path.basename, files)] == ["scene.png", "scene_overlay.png"]
  np.testing.assert_array_equal(Image.open(files[0]), found.labels)
  areas = [(row["index"], row["pixels"]) for row in trained.task.as_json(found)["classes"]]
  assert areas == found.areas()
  assert Image.open(files[1]).width > 380


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (("a/x.png", "b/x.jpg"), "a/x.png and b/x.jpg would both write maps/x.png"),
    (("x.png", "x_overlay.png"), "would both write maps/x_overlay.png"),
    (("maps/x.png",), "maps/x.png is one of the images"),
  ],
)
def test_files_that_would_be_overwritten_are_refused(names, message):
  with pytest.raises(UserError, match=message):
    label_maps.file_names({name: os.path.basename(name) for name in names}, "maps")
  found = label_maps.file_names({"a/x.png": "a/x.png", "b/x.png": "b/x.png"}, "maps")
  assert found["b/x.png"] == ("maps/b/x.png", "maps/b/x_overlay.png")


def test_a_prediction_has_the_pictures_size_and_its_areas(trained):
  (found,) = trained.predict(np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8))
  assert found.labels.shape == (40, 70)
  assert len(found.areas()) > 1
  assert sum(count for _, count in found.areas()) == found.labels.size
  assert trained.preprocess(np.zeros((40, 70, 3), np.uint8)).shape == (55, 96, 3)


@pytest.mark.slow
def test_a_contact_sheet_shows_maps(command, scenes, tmp_path):
  path = tmp_path / "sheet.png"
  code, output = command(
    "-m", "mlpvision.preview", "--config=configs/quickstart_segmentation.py", f"--output={path}", "--images=4",
    "--config.augment.resize_ratio=(0.5, 0.5)",
  )  # fmt: skip
  assert code == 0, output
  sheet = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
  for gray in (0.25, 0.45):  # the stripes of the padding, three quarters of each crop
    assert (abs(sheet - 255 * gray) < 2).all(1).mean() > 0.02


def test_a_caption_has_the_largest_classes_of_the_labeled_pixels():
  label = np.array([[0, 0, 0, 255], [2, 2, 1, 255], [255] * 4], np.int32)
  assert segmentation.caption({"label": label}, ("sky", "sea", "land")) == "sky: 50%\nland: 33%"
  assert segmentation.caption({"label": np.full((2, 2), 255)}, ("sky",)) == ""
  assert segmentation.label_map({"label": label}).dtype == np.uint8


def test_curves_of_a_segmenter(segmenter):
  rows = [json.loads(line) for line in (segmenter / "metrics.jsonl").read_text().splitlines()]
  panels = curves._panels(rows)
  assert list(panels) == ["loss", "miou", "aacc", "learning_rate"]
  assert [label for name, (label, _) in panels["loss"].items() if name in {key for row in rows for key in row}] == [
    "train",
    "train, decode",
    "train, auxiliary",
  ]
  assert {"train/aacc", "val/aacc"} < panels["aacc"].keys()
  assert (segmenter / "curves.png").stat().st_size > 10_000


def test_confusion_counts_the_pixels(trained, split):
  counts = confusion.count(trained, split)
  labels = [np.asarray(Image.open(io.BytesIO(split.source[i]["segmentation"]))) for i in range(len(split))]
  expected = np.zeros_like(counts)
  for i, label in enumerate(labels):
    (found,) = trained.predict(split.source[i]["image"])
    np.add.at(expected, (label, found.labels), 1)
  np.testing.assert_array_equal(counts, expected)
  figure = confusion.draw(counts, split)
  shown = {text.get_text() for text in figure.axes[0].texts}
  assert f"{counts.max(1).max() / counts.sum(1)[counts.max(1).argmax()]:.0%}" in shown


def test_features_are_those_of_the_backbone(trained):
  image = trained.preprocess(np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8))
  colors = maps.feature_colors(trained.model.backbone, trained.params["backbone"], image)
  assert [x.shape[:2] for x in colors] == [(4, 6)]


def test_evaluation_takes_its_own_settings_from_the_config(segmenter):
  trained = mlpvision.load(segmenter)
  config = trained.config.copy_and_resolve_references()
  config.data.update(scale=(32, 32), mean=(0.1,) * 3, image_size=16, classes="names.txt")
  config.eval.update(scales=(0.5, 1.0), flip=True, mode="slide", stride=(32, 32))
  merged = run_lib.with_dataset(trained, config)
  assert tuple(merged.data.scale) == (96, 96)  # the weights'
  assert merged.data.image_size == 64
  assert tuple(merged.data.mean) == (0.5, 0.5, 0.5)
  assert merged.data.classes == "names.txt"
  assert (tuple(merged.eval.scales), merged.eval.flip, merged.eval.mode) == ((0.5, 1.0), True, "slide")
  config.eval.stride = (65, 64)
  with pytest.raises(UserError, match=r"eval.stride=\(65, 64\): must not exceed .* data.image_size=64"):
    run_lib.with_dataset(trained, config)
  config.data.classes, config.eval.stride = "", (32, 32)
  found = run_lib.evaluate(segmenter, config)
  view = ", at ratios 0.5, 1, also mirrored, in windows of 64 pixels, 32 x 32 apart"
  assert found["preprocessing"].endswith(view)
  assert {"miou", "aacc", "macc", "images"} < found.keys()
  line = evaluators.summary({"/miou": 0.5, "/aacc": 0.25})
  assert line == "mIoU 50.00%  aAcc 25.00%"


def test_evaluators_of_classifiers_are_refused(segmenter):
  for name in ("calibration", "fewshot"):
    with pytest.raises(UserError, match=f"{name} is for classifiers.*remove {name} from --evals"):
      run_lib.evaluate(segmenter, evals=("accuracy", name))
  config = mlpvision.load(segmenter).config.copy_and_resolve_references()
  config.evals.fewshot.every = ""
  with pytest.raises(UserError, match="fewshot is for classifiers.*evals.fewshot.every=never"):
    evaluators.entries(config)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("draw", "saliency", "photo.png"), "saliency is drawn of a classifier"),
    (("draw", "receptive_field"), "receptive_field is drawn of a classifier"),
    (("fewshot",), "fewshot is for classifiers"),
  ],
)
def test_commands_for_classifiers_refuse_a_segmenter(arguments, message, here, segmenter, tmp_path):
  Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photo.png")
  name, *rest = (str(tmp_path / part) if part == "photo.png" else part for part in arguments)
  output = (f"--output={tmp_path / 'out.png'}",) if name == "draw" else ()
  code, said = here("-m", f"mlpvision.{name}", *rest, f"--weights={segmenter}", *output)
  assert code == 2
  assert message in said


def test_a_file_and_a_config_of_another_task_are_refused(trained, tmp_path):
  formats.to_safetensors(trained, tmp_path / "segmenter.safetensors")
  loaded = mlpvision.load(tmp_path / "segmenter.safetensors")
  with pytest.raises(UserError, match="the weights are a segmenter, and --config is for a classifier"):
    run_lib.with_dataset(loaded, quickstart.get_config())


def test_weights_round_trip(trained, tmp_path):
  formats.to_safetensors(trained, tmp_path / "segmenter.safetensors")
  again = mlpvision.load(tmp_path / "segmenter.safetensors")
  jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)
  plain = trained.model.clone(head_dropout=0.0, backbone=trained.model.backbone.clone(drop_path=0.0))
  assert again.model.clone(head_dropout=0.0) == plain
  assert (again.preprocessing, again.class_names) == (trained.preprocessing, trained.class_names)
  names = (tmp_path / "segmenter.safetensors").read_bytes()[:20_000]
  assert b"decode_head.fpn_bottleneck.conv.weight" in names  # mmsegmentation's


def test_onnx_is_for_classifiers(trained, tmp_path):
  with pytest.raises(UserError, match="is a segmenter, and --format=onnx is for classifiers: use --format=stablehlo"):
    formats.FORMATS["onnx"](trained, tmp_path / "model.onnx")
  assert not list(tmp_path.iterdir())


def test_stablehlo_takes_any_size(trained, tmp_path):
  formats.to_stablehlo(trained, tmp_path / "model")
  call = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes())).call
  view, rng = trained.preprocessing, np.random.default_rng(0)
  for shape in ((2, 64, 96, 3), (1, 32, 32, 3)):
    images = rng.integers(0, 256, shape, np.uint8)
    expected = jax.jit(trained.model.apply)(trained.variables, augment.normalize(images, view.mean, view.std))
    np.testing.assert_allclose(call(images), expected, rtol=1e-4, atol=1e-4)


def test_a_classifier_predicts_no_map(here, tmp_path):
  model = models.create("s2mlp_wide", num_classes=3, hidden_dim=16, num_blocks=1, patch_size=16)
  shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
  view = preprocessing.Preprocessing((0.5,) * 3, (0.5,) * 3, image_size=32)
  weights.save(
    tmp_path / "weights.safetensors", model, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes), view
  )
  Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photo.png")
  paths = f"--weights={tmp_path / 'weights.safetensors'}", f"--output={tmp_path / 'maps'}", str(tmp_path / "photo.png")
  code, output = here("-m", "mlpvision.predict", *paths)
  assert code == 2
  assert "a classifier predicts no map" in output
  assert not (tmp_path / "maps").exists()
