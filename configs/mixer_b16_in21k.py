"""Mixer-B/16 pre-trained on ImageNet-21K (arXiv 2105.01601, Table 4); configs/mixer_b16_finetune.py goes on from it.

  python train.py --config=configs/mixer_b16_in21k.py --workdir=gs://BUCKET/mixer_b16_in21k

Trained on TPU v3 pods by the authors, who publish no accuracy on ImageNet-21K itself; not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels; the paper's own recipe."""
  config = default.get_config()
  recipes.mixer_21k(config)
  config.model.name = "mixer_b16"
  return config
