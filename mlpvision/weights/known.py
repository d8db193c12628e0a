"""Published weights by name: where they are, which model they are of, what they expect of an image, what they reach."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from mlpvision.preprocessing import Preprocessing

_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def preprocessing_to(preprocessing: Preprocessing) -> dict[str, Any]:
  """As JSON can hold it."""
  return dataclasses.asdict(preprocessing)


def preprocessing_from(fields: Mapping[str, Any] | None) -> Preprocessing | None:
  """The inverse of `preprocessing_to`; None of None."""
  if fields is None:
    return None
  return Preprocessing(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


@dataclasses.dataclass(frozen=True)
class Known:
  """One set of published weights.

  Attributes:
    name: what `load` takes.
    model, overrides: for `models.create`.
    url: of the file; None where it has to be fetched by hand.
    page: where the authors offer it.
    suffix: of the file.
    preprocessing: of the published accuracy.
    num_classes: of the head: 1000 of ImageNet-1k, 21843 or 21841 of ImageNet-21k.
    top1: published, on ImageNet-1k's validation set, in percent; None where the head is not of these classes.
    source: of top1.
    note: what else to know.
  """

  name: str
  model: str
  url: str | None
  page: str
  suffix: str
  preprocessing: Preprocessing
  top1: float | None
  source: str
  num_classes: int = 1000
  overrides: dict = dataclasses.field(default_factory=dict)
  note: str = ""


def _google():
  """The Mixer paper's own files. Its evaluation scales by area averaging, to which antialiased bilinear is closest."""
  page = "https://github.com/google-research/vision_transformer"
  view = Preprocessing(**_INCEPTION, interpolation="bilinear")
  for size in ("b", "l"):
    for data, classes in (("imagenet1k", 1000), ("imagenet21k", 21843)):
      yield Known(
        name=f"mixer_{size}16.goog_{data.replace('imagenet', 'in')}",
        model=f"mixer_{size}16",
        url=f"https://storage.googleapis.com/mixer_models/{data}/Mixer-{size.upper()}_16.npz",
        page=page,
        suffix=".npz",
        preprocessing=view,
        top1={"b": 76.44, "l": 71.76}[size] if classes == 1000 else None,
        source="Mixer paper (arXiv 2105.01601), Table 3",
        num_classes=classes,
      )


def _timm(name, model, top1, *, crop_ratio, num_classes=1000, image_size=224, normalised=_IMAGENET, note=""):
  """timm's conversions on the Hugging Face hub, under timm's own names; re-evaluated by timm."""
  return Known(
    name=name,
    model=model,
    url=f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors",
    page=f"https://huggingface.co/timm/{name}",
    suffix=".safetensors",
    preprocessing=Preprocessing(**normalised, crop_ratio=crop_ratio, image_size=image_size),
    top1=top1,
    source="timm, results/results-imagenet.csv",
    num_classes=num_classes,
    note=note,
  )


_MISLABELLED = "ImageNet-21k is in the name only: the accuracy is that of training on ImageNet-1k from scratch."


def _timm_all():
  mixer = dict(crop_ratio=0.875, normalised=_INCEPTION)
  yield _timm("mixer_b16_224.goog_in21k_ft_in1k", "mixer_b16", 76.616, **mixer, note=_MISLABELLED)
  yield _timm("mixer_b16_224.goog_in21k", "mixer_b16", None, num_classes=21843, **mixer)
  yield _timm("mixer_l16_224.goog_in21k_ft_in1k", "mixer_l16", 72.084, **mixer, note=_MISLABELLED)
  yield _timm("mixer_l16_224.goog_in21k", "mixer_l16", None, num_classes=21843, **mixer)

  yield _timm("resmlp_12_224.fb_in1k", "resmlp_s12", 76.66, crop_ratio=0.875)
  yield _timm("resmlp_24_224.fb_in1k", "resmlp_s24", 79.374, crop_ratio=0.875)
  yield _timm("resmlp_24_224.fb_distilled_in1k", "resmlp_s24", 80.756, crop_ratio=0.875)
  yield _timm("resmlp_36_224.fb_in1k", "resmlp_s36", 79.772, crop_ratio=0.875)
  yield _timm("resmlp_36_224.fb_distilled_in1k", "resmlp_s36", 81.148, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_in1k", "resmlp_b24_8", 81.036, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_distilled_in1k", "resmlp_b24_8", 83.592, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_in22k_ft_in1k", "resmlp_b24_8", 84.398, crop_ratio=0.875)

  vit, vit_384 = (dict(crop_ratio=0.9, normalised=_INCEPTION), dict(crop_ratio=1.0, normalised=_INCEPTION))
  vit_384["image_size"] = 384
  yield _timm("vit_small_patch16_224.augreg_in1k", "vit_s16", 78.846, **vit)
  yield _timm("vit_small_patch16_224.augreg_in21k_ft_in1k", "vit_s16", 81.384, **vit)
  yield _timm("vit_base_patch16_224.augreg_in1k", "vit_b16", 79.154, **vit)
  yield _timm("vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_b16", 84.532, **vit)
  yield _timm("vit_base_patch16_224.orig_in21k_ft_in1k", "vit_b16", 81.786, **vit)
  yield _timm("vit_base_patch16_384.augreg_in1k", "vit_b16", 81.102, **vit_384)
  yield _timm("vit_base_patch16_384.augreg_in21k_ft_in1k", "vit_b16", 85.996, **vit_384)
  yield _timm("vit_base_patch16_384.orig_in21k_ft_in1k", "vit_b16", 84.200, **vit_384)
  yield _timm("vit_large_patch16_224.augreg_in21k_ft_in1k", "vit_l16", 85.834, **vit)
  yield _timm("deit_small_patch16_224.fb_in1k", "vit_s16", 79.844, crop_ratio=0.9)
  yield _timm("deit_base_patch16_224.fb_in1k", "vit_b16", 81.992, crop_ratio=0.9)

  yield _timm("swin_tiny_patch4_window7_224.ms_in1k", "swin_tiny", 81.376, crop_ratio=0.9)
  yield _timm("swin_small_patch4_window7_224.ms_in1k", "swin_small", 83.208, crop_ratio=0.9)
  yield _timm("swin_base_patch4_window7_224.ms_in1k", "swin_base", 83.606, crop_ratio=0.9)
  yield _timm("swin_base_patch4_window7_224.ms_in22k_ft_in1k", "swin_base", 85.272, crop_ratio=0.9)
  yield _timm("swin_base_patch4_window12_384.ms_in1k", "swin_base_384", 84.476, crop_ratio=1.0, image_size=384)


def _asmlp():
  """Behind OneDrive links, which a program cannot fetch."""
  for size, top1 in (("tiny", 81.3), ("small", 83.1), ("base", 83.3)):
    yield Known(
      name=f"asmlp_{size}.official",
      model=f"asmlp_{size}",
      url=None,
      page="https://github.com/svip-lab/AS-MLP",
      suffix=".pth",
      preprocessing=Preprocessing(**_IMAGENET),
      top1=top1,
      source="the repository's README",
      note="Released before or after its shift size went from 3 to 5: try shift_size=3 too." if size == "tiny" else "",
    )


def _ff():
  for size, top1 in (("tiny", 61.4), ("base", 74.9)):
    release = "https://github.com/lukemelas/do-you-even-need-attention/releases/download/v0.0.1"
    yield Known(
      name=f"ff_{size}.official",
      model=f"ff_{size}",
      url=f"{release}/linear-{size}-checkpoint.pth",
      page="https://github.com/lukemelas/do-you-even-need-attention",
      suffix=".pth",
      preprocessing=Preprocessing(**_IMAGENET),
      top1=top1,
      source="the repository's README",
    )


def _resmlp():
  readme, paper = "deit's README_resmlp.md", "ResMLP paper (arXiv 2105.03404)"
  for model, file, top1, source in (
    ("resmlp_s12", "resmlp_12_no_dist", 76.6, paper),
    ("resmlp_s24", "resmlp_24_no_dist", 79.4, paper),
    ("resmlp_s36", "resmlp_36_no_dist", 79.7, paper),
    ("resmlp_b24_8", "resmlpB_24_no_dist", 81.0, paper),
    ("resmlp_s12", "resmlp_12_dist", 77.8, readme),
    ("resmlp_s24", "resmlp_24_dist", 80.8, readme),
    ("resmlp_s36", "resmlp_36_dist", 81.1, readme),
    ("resmlp_b24_8", "resmlpB_24_dist", 83.6, readme),
    ("resmlp_b24_8", "resmlpB_24_22k", 84.4, readme),
  ):
    kind = {"no_dist": "in1k", "dist": "distilled_in1k", "22k": "in22k_ft_in1k"}[file.split("_", 2)[2]]
    yield Known(
      name=f"{model}.deit_{kind}",
      model=model,
      url=f"https://dl.fbaipublicfiles.com/deit/{file}.pth",
      page="https://github.com/facebookresearch/deit/blob/main/README_resmlp.md",
      suffix=".pth",
      preprocessing=Preprocessing(**_IMAGENET, crop_ratio=0.9),
      top1=top1,
      source=source,
    )


def _swin():
  for model, file, size, crop_ratio, top1 in (
    ("swin_tiny", "swin_tiny_patch4_window7_224", 224, 0.875, 81.2),
    ("swin_small", "swin_small_patch4_window7_224", 224, 0.875, 83.2),
    ("swin_base", "swin_base_patch4_window7_224", 224, 0.875, 83.5),
    ("swin_base_384", "swin_base_patch4_window12_384", 384, 1.0, 84.5),
  ):
    yield Known(
      name=f"{model}.official",
      model=model,
      url=f"https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{file}.pth",
      page="https://github.com/microsoft/Swin-Transformer",
      suffix=".pth",
      preprocessing=Preprocessing(**_IMAGENET, crop_ratio=crop_ratio, image_size=size),
      top1=top1,
      source="the repository's README",
      note="Evaluated on whole images stretched to a square, not on centre crops." if size == 384 else "",
    )


KNOWN = {entry.name: entry for group in (_google, _timm_all, _asmlp, _ff, _resmlp, _swin) for entry in group()}
