"""AS-MLP-B fine-tuned for 384 pixels (arXiv 2107.08391 v2).

  python train.py --config=configs/asmlp_base_384.py --workdir=gs://BUCKET/asmlp_base_384

Warm-starts from a run of configs/asmlp_base.py. Set --config.init_from= to your run, or to the authors' weight file.
Published: 84.3 % top-1; recipe and hardware are not published. Not reproduced here yet.
"""

from configs import default, recipes


def get_config():
  """Swin's recipe for 384 pixels, with the drop path rate of the 224-pixel recipe."""
  config = default.get_config()
  recipes.swin_384(config)
  config.model.name = "asmlp_base"
  config.model.shift_size = 5
  config.model.drop_path = 0.5
  config.init_from = "runs/asmlp_base"
  return config
