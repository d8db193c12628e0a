"""UperNet with AS-MLP-S on ADE20K (arXiv 2107.08391, Table 6).

  python train.py --config=configs/upernet_asmlp_small.py --workdir=gs://BUCKET/upernet_asmlp_small

Published: 49.2 % mIoU with several scales and mirrored images. Not reproduced here yet. To evaluate so:

  python -m mlpvision.evaluate --weights=gs://BUCKET/upernet_asmlp_small --config=configs/upernet_asmlp_small.py \
    --config.eval.scales="(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)" --config.eval.flip=True

The paper's shift size is 5 in all experiments; the released config of this model has 3, which its weights need:
configs/upernet_asmlp_small.py:released.
"""

from configs import default, recipes


def get_config(source="paper"):
  """The values of the paper, or of the released config where it differs ("released")."""
  config = default.get_config()
  recipes.upernet(config)
  config.model.backbone = "asmlp_small"
  config.init_from = "asmlp_small.official"
  if source not in ("paper", "released"):
    raise ValueError(f"configs/upernet_asmlp_small.py:{source}: 'paper' or 'released'")
  config.model.shift_size = 5 if source == "paper" else 3
  config.model.drop_path = 0.3
  return config
