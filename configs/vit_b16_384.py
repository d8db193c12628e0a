"""ViT-B/16 fine-tuned for 384 pixels, as DeiT-B 384 (arXiv 2012.12877; its README_deit.md).

  python train.py --config=configs/vit_b16_384.py --workdir=gs://BUCKET/vit_b16_384

Warm-starts from DeiT-B's published weights. To start from a run of configs/vit_b16.py:
--config.init_from=gs://BUCKET/vit_b16.
Published: 82.9 % top-1, 96.2 % top-5, fine-tuned on 16 GPUs. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """DeiT's recipe for 384 pixels; the position embedding is interpolated from 14x14 to 24x24 patches."""
  config = default.get_config()
  recipes.deit_384(config)
  config.model.name = "vit_b16"
  config.init_from = "deit_base_patch16_224.fb_in1k"
  return config
