"""timm's RandAugment operations, in Pillow; ours are tested against them and compared in speed."""

from PIL import Image, ImageEnhance, ImageOps

# The operations of "inc1", whose effect increases with the level.
INCREASING = (
  "AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd",
  "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing", "ShearX", "ShearY",
  "TranslateXRel", "TranslateYRel",
)  # fmt: skip


def apply(name: str, image: Image.Image, level: float, sign: int, fill: tuple[int, ...]) -> Image.Image:
  """timm's operation `name` at a level in [0, 10]; sign: the direction, 1 or -1; fill: color of new pixels."""

  def affine(*matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)

  share = sign * level / 10
  enhance = getattr(ImageEnhance, name.removesuffix("Increasing"), None)
  if enhance:
    return enhance(image).enhance(max(0.1, 1 + 0.9 * share) if name.endswith("Increasing") else 0.1 + 0.18 * level)
  match name:
    case "AutoContrast":
      return ImageOps.autocontrast(image)
    case "Equalize":
      return ImageOps.equalize(image)
    case "Invert":
      return ImageOps.invert(image)
    case "Posterize" | "PosterizeIncreasing":
      bits = int(0.4 * level) if name == "Posterize" else 4 - int(0.4 * level)
      return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)  # new versions refuse 0
    case "Solarize":
      return ImageOps.solarize(image, int(25.6 * level))
    case "SolarizeIncreasing":
      return ImageOps.solarize(image, 256 - int(25.6 * level))
    case "SolarizeAdd":
      return image.point([min(255, v + int(11 * level)) if v < 128 else v for v in range(256)] * 3)
    case "Rotate":
      return image.rotate(30 * share, Image.Resampling.BICUBIC, fillcolor=fill)
    case "ShearX":
      return affine(1, 0.3 * share, 0, 0, 1, 0)
    case "ShearY":
      return affine(1, 0, 0, 0.3 * share, 1, 0)
    case "TranslateXRel":
      return affine(1, 0, 0.45 * share * image.width, 0, 1, 0)
    case "TranslateYRel":
      return affine(1, 0, 0, 0, 1, 0.45 * share * image.height)
