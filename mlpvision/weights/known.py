"""Published weights by name: their files, models, preprocessing and accuracies."""

import dataclasses

from mlpvision.preprocessing import Preprocessing

_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclasses.dataclass(frozen=True)
class Known:
  """One set of published weights.

  Attributes:
    name: the argument of `load`.
    model, overrides: for `models.create`.
    url: of the file; None if it must be downloaded manually from `page`.
    page: the authors' page.
    suffix: of the file.
    preprocessing: used for the published accuracy.
    top1: published accuracy on the validation set of ImageNet-1k, in percent; None for a head with other classes, or if
      it is not noted here.
    source: of top1.
    num_classes: 1000 for ImageNet-1k, 21843 or 21841 for ImageNet-21k.
    note: for the reader.
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
  """The Mixer paper's files. Its evaluation resizes by area averaging; antialiased bilinear is the closest here."""
  for size, top1 in (("b", 76.44), ("l", 71.76)):
    for data, classes in (("imagenet1k", 1000), ("imagenet21k", 21843)):
      yield Known(
        name=f"mixer_{size}16.goog_{data.replace('imagenet', 'in')}",
        model=f"mixer_{size}16",
        url=f"https://storage.googleapis.com/mixer_models/{data}/Mixer-{size.upper()}_16.npz",
        page="https://github.com/google-research/vision_transformer",
        suffix=".npz",
        preprocessing=Preprocessing(**_INCEPTION, interpolation="bilinear"),
        top1=top1 if classes == 1000 else None,
        source="Mixer paper (arXiv 2105.01601), Table 3",
        num_classes=classes,
      )
  for patch, top1 in ((16, 77.4), (32, None)):
    yield Known(
      name=f"mixer_b{patch}.goog_sam_in1k",
      model=f"mixer_b{patch}",
      url=f"https://storage.googleapis.com/mixer_models/sam/Mixer-B_{patch}.npz",
      page="https://github.com/google-research/vision_transformer",
      suffix=".npz",
      preprocessing=Preprocessing(**_INCEPTION, interpolation="bilinear"),
      top1=top1,
      source="arXiv 2106.01548, Table 2",
      note="Trained with SAM, with random crops and flips alone.",
    )


def _timm(name, model, top1, *, num_classes=1000, normalized=_IMAGENET, note="", **view):
  """A conversion on the Hugging Face hub, with timm's name and timm's measurement of top1."""
  page, view = f"https://huggingface.co/timm/{name}", Preprocessing(**normalized, **view)
  url, source = f"{page}/resolve/main/model.safetensors", "timm, results/results-imagenet.csv"
  return Known(name, model, url, page, ".safetensors", view, top1, source, num_classes, note=note)


_MISLABELED = "Despite the name, the accuracy is that of training from scratch on ImageNet-1k."


def _timm_all():
  mixer = dict(crop_ratio=0.875, normalized=_INCEPTION)
  yield _timm("mixer_b16_224.goog_in21k_ft_in1k", "mixer_b16", 76.616, **mixer, note=_MISLABELED)
  yield _timm("mixer_b16_224.goog_in21k", "mixer_b16", None, num_classes=21843, **mixer)
  yield _timm("mixer_l16_224.goog_in21k_ft_in1k", "mixer_l16", 72.084, **mixer, note=_MISLABELED)
  yield _timm("mixer_l16_224.goog_in21k", "mixer_l16", None, num_classes=21843, **mixer)

  yield _timm("resmlp_12_224.fb_in1k", "resmlp_s12", 76.66, crop_ratio=0.875)
  yield _timm("resmlp_24_224.fb_in1k", "resmlp_s24", 79.374, crop_ratio=0.875)
  yield _timm("resmlp_24_224.fb_distilled_in1k", "resmlp_s24", 80.756, crop_ratio=0.875)
  yield _timm("resmlp_36_224.fb_in1k", "resmlp_s36", 79.772, crop_ratio=0.875)
  yield _timm("resmlp_36_224.fb_distilled_in1k", "resmlp_s36", 81.148, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_in1k", "resmlp_b24_8", 81.036, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_distilled_in1k", "resmlp_b24_8", 83.592, crop_ratio=0.875)
  yield _timm("resmlp_big_24_224.fb_in22k_ft_in1k", "resmlp_b24_8", 84.398, crop_ratio=0.875)

  yield _timm("gmlp_s16_224.ra3_in1k", "gmlp_s16", 79.652, crop_ratio=0.875, normalized=_INCEPTION)

  vit = dict(crop_ratio=0.9, normalized=_INCEPTION)
  vit_384 = dict(crop_ratio=1.0, normalized=_INCEPTION, image_size=384)
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

  pooled = "timm pools before the last norm, the authors' code and ours after it."
  yield _timm("poolformer_s12.sail_in1k", "poolformer_s12", 77.238, crop_ratio=0.9, note=pooled)
  yield _timm("poolformer_s24.sail_in1k", "poolformer_s24", 80.294, crop_ratio=0.9, note=pooled)
  yield _timm("poolformer_s36.sail_in1k", "poolformer_s36", 81.428, crop_ratio=0.9, note=pooled)
  yield _timm("poolformer_m36.sail_in1k", "poolformer_m36", 82.104, crop_ratio=0.95, note=pooled)
  yield _timm("poolformer_m48.sail_in1k", "poolformer_m48", 82.462, crop_ratio=0.95, note=pooled)


_README = "the repository's README"


def _official(name, model, url, page, top1, source=_README, note="", **view):
  """A .pth file of the authors; view: its preprocessing, other than mean and std."""
  return Known(name, model, url, page, ".pth", Preprocessing(**_IMAGENET, **view), top1, source, note=note)


def _asmlp():
  """Files on OneDrive, which a program cannot download."""
  page = "https://github.com/svip-lab/AS-MLP"
  note = "The shift size changed from 3 to 5 before or after this release: also try shift_size=3."
  yield _official("asmlp_tiny.official", "asmlp_tiny", None, page, 81.3, note=note)
  yield _official("asmlp_small.official", "asmlp_small", None, page, 83.1)
  yield _official("asmlp_base.official", "asmlp_base", None, page, 83.3)


def _ff():
  page = "https://github.com/lukemelas/do-you-even-need-attention"
  for size, top1 in (("tiny", 61.4), ("base", 74.9)):
    url = f"{page}/releases/download/v0.0.1/linear-{size}-checkpoint.pth"
    yield _official(f"ff_{size}.official", f"ff_{size}", url, page, top1)


def _resmlp():
  readme, paper = "deit's README_resmlp.md", "ResMLP paper (arXiv 2105.03404)"
  page = "https://github.com/facebookresearch/deit/blob/main/README_resmlp.md"
  for model, kind, file, top1, source in (
    ("resmlp_s12", "in1k", "resmlp_12_no_dist", 76.6, paper),
    ("resmlp_s24", "in1k", "resmlp_24_no_dist", 79.4, paper),
    ("resmlp_s36", "in1k", "resmlp_36_no_dist", 79.7, paper),
    ("resmlp_b24_8", "in1k", "resmlpB_24_no_dist", 81.0, paper),
    ("resmlp_s12", "distilled_in1k", "resmlp_12_dist", 77.8, readme),
    ("resmlp_s24", "distilled_in1k", "resmlp_24_dist", 80.8, readme),
    ("resmlp_s36", "distilled_in1k", "resmlp_36_dist", 81.1, readme),
    ("resmlp_b24_8", "distilled_in1k", "resmlpB_24_dist", 83.6, readme),
    ("resmlp_b24_8", "in22k_ft_in1k", "resmlpB_24_22k", 84.4, readme),
  ):
    url = f"https://dl.fbaipublicfiles.com/deit/{file}.pth"
    yield _official(f"{model}.deit_{kind}", model, url, page, top1, source, crop_ratio=0.9)


def _swin():
  releases, page = (f"https://github.com/{name}" for name in ("SwinTransformer/storage", "microsoft/Swin-Transformer"))
  stretched = "Evaluated on whole images, stretched to a square, not on center crops."
  for model, file, top1, note, view in (
    ("swin_tiny", "swin_tiny_patch4_window7_224", 81.2, "", {}),
    ("swin_small", "swin_small_patch4_window7_224", 83.2, "", {}),
    ("swin_base", "swin_base_patch4_window7_224", 83.5, "", {}),
    ("swin_base_384", "swin_base_patch4_window12_384", 84.5, stretched, dict(crop_ratio=1.0, image_size=384)),
  ):
    url = f"{releases}/releases/download/v1.0.0/{file}.pth"
    yield _official(f"{model}.official", model, url, page, top1, note=note, **view)


def _poolformer():
  page = "https://github.com/sail-sg/poolformer"
  for size, top1, crop_ratio in (("s12", 77.2, 0.9), ("s24", 80.3, 0.9), ("s36", 81.4, 0.9), ("m36", 82.1, 0.95),
                                 ("m48", 82.5, 0.95)):  # fmt: skip
    url = f"{page}/releases/download/v1.0/poolformer_{size}.pth.tar"
    yield _official(f"poolformer_{size}.official", f"poolformer_{size}", url, page, top1, crop_ratio=crop_ratio)


def _cyclemlp():
  page = "https://github.com/ShoufaChen/CycleMLP"
  for size, top1 in ((1, 78.9), (2, 81.6), (3, 82.4), (4, 83.0), (5, 83.2)):
    url = f"{page}/releases/download/v0.1/CycleMLP_B{size}.pth"
    yield _official(f"cyclemlp_b{size}.official", f"cyclemlp_b{size}", url, page, top1)


def _vip():
  """Files on Google Drive, which a program cannot download."""
  page, source = "https://github.com/houqb/VisionPermutator", "the repository's logs"
  note = "The README allows non-commercial use only."
  for size, top1, crop_ratio in (("s7", 81.518, 0.9), ("m7", 82.746, 0.9), ("l7", 83.204, 0.875)):
    yield _official(f"vip_{size}.official", f"vip_{size}", None, page, top1, source, note, crop_ratio=crop_ratio)


_GROUPS = (_google, _timm_all, _asmlp, _ff, _resmlp, _swin, _poolformer, _cyclemlp, _vip)
KNOWN = {entry.name: entry for group in _GROUPS for entry in group()}
