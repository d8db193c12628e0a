"""UperNet with AS-MLP-B on ADE20K (arXiv 2107.08391, Table 6).

  python train.py --config=configs/upernet_asmlp_base.py --workdir=gs://BUCKET/upernet_asmlp_base

Published: 49.5 % mIoU with several scales and mirrored images. Not reproduced here yet. To evaluate so:

  python -m mlpvision.evaluate --weights=gs://BUCKET/upernet_asmlp_base --config=configs/upernet_asmlp_base.py \
    --config.eval.scales="(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)" --config.eval.flip=True

The paper's drop path is 0.3 for all sizes; the released config of this model has 0.5:
configs/upernet_asmlp_base.py:released.
"""

from configs import default, recipes


def get_config(source="paper"):
  """The values of the paper, or of the released config where it differs ("released")."""
  config = default.get_config()
  recipes.upernet(config)
  config.model.backbone = "asmlp_base"
  config.init_from = "asmlp_base.official"
  if source not in ("paper", "released"):
    raise ValueError(f"configs/upernet_asmlp_base.py:{source}: 'paper' or 'released'")
  config.model.shift_size = 5
  config.model.drop_path = 0.3 if source == "paper" else 0.5
  return config
