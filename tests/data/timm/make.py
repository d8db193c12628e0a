"""Writes the folders beside it, as timm saves models for the Hugging Face Hub: python tests/data/timm/make.py

Made with timm 1.0.31 and torch 2.13 (see README.md). timm's architectures have sizes of their own, so that small models
are made from its class.
"""

import pathlib

import numpy as np
import timm
from timm.models import mlp_mixer, save_for_hf
import torch

HERE = pathlib.Path(__file__).parent
SIZES = dict(img_size=32, patch_size=8, num_blocks=2, embed_dim=16, num_classes=5)
LABELS = ["ant", "bee", "cat", "dog", "eel"]
# Folder -> (architecture that lends its preprocessing, options of the class, whether the file is safetensors).
FOLDERS = {
  "mixer": ("mixer_s32_224", {}, True),
  "resmlp": ("resmlp_12_224", dict(mlp_ratio=4, block_layer=mlp_mixer.ResBlock, norm_layer=mlp_mixer.Affine), False),
}


def main():
  generator = torch.Generator().manual_seed(0)
  images = torch.randn(2, 3, 32, 32, generator=generator)
  found = {"images": images.permute(0, 2, 3, 1).numpy()}
  for folder, (architecture, options, safe) in FOLDERS.items():
    model = mlp_mixer.MlpMixer(**SIZES, **options).eval()
    model.pretrained_cfg = timm.get_pretrained_cfg(architecture).to_dict() | dict(input_size=(3, 32, 32))
    with torch.no_grad():
      for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
      found[folder] = model(images).numpy()
    names = {"label_names": LABELS} if folder == "mixer" else None
    save_for_hf(model, HERE / folder, model_config=names, safe_serialization=safe)
  np.savez(HERE / "logits.npz", **found)


if __name__ == "__main__":
  main()
