"""Mixer-B/16 pre-trained on ImageNet-21K (arXiv 2105.01601, Table 4); configs/mixer_b16_finetune.py fine-tunes it.

  python train.py --config=configs/mixer_b16_in21k.py --workdir=gs://BUCKET/mixer_b16_in21k

The authors trained on TPU v3 pods and publish no accuracy on ImageNet-21K itself. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """12 blocks of 768 channels; the paper's own recipe."""
  config = default.get_config()
  recipes.mixer_21k(config)
  config.model.name = "mixer_b16"
  return config
