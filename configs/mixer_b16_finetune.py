"""Mixer-B/16 fine-tuned on ImageNet-1K from ImageNet-21K (arXiv 2105.01601, Table 3).

  python train.py --config=configs/mixer_b16_finetune.py --workdir=gs://BUCKET/mixer_b16_finetune

Warm-starts from the published weights. To start from a run of configs/mixer_b16_in21k.py:
--config.init_from=gs://BUCKET/mixer_b16_in21k. At 448 pixels: --config.data.image_size=448
--config.model.tokens_mlp_dim=1536. On another dataset: --config.data.name=cifar10 --config.data.eval_split=test
--config.duration="10000 steps".

Published: 80.64 % top-1 at 224 pixels, on TPU v3. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """The paper's SGD recipe, with a new head."""
  config = default.get_config()
  recipes.mixer_finetune(config)
  config.model.name = "mixer_b16"
  config.model.tokens_mlp_dim = 384
  config.init_from = "mixer_b16.goog_in21k"
  return config
