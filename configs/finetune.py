"""Any weights on any dataset, with a new head.

  python train.py --config=configs/finetune.py --config.init_from=WEIGHTS --config.model.name=NAME \\
    --config.data.name=folder:PATH --workdir=runs/finetuned

WEIGHTS is a workdir, a weight file or a name of docs/weights.md, and NAME the model in it, or another variant of its
family: sizes come from the weights. The recipe is the Mixer paper's, with SGD; configs/finetune.py:adamw is one with
AdamW and layer-wise rates. At another resolution: --config.data.image_size=384. To train the head alone:
--config.optim.lr_multipliers='(("^(?!head)", 0.0),)'.

Both are for many images. For a folder of some hundreds: --config.data.batch_size=32 --config.duration="20 epochs"
--config.optim.schedule.warmup="1 epoch" --config.optim.learning_rate=0.003 (adamw: 1e-4).
"""

from configs import default, recipes


def get_config(optimizer="sgd"):
  """The recipe "sgd" or "adamw"."""
  config = default.get_config()
  recipes.mixer_finetune(config)
  config.model.name = "mixer_b16"
  config.init_from = "mixer_b16.goog_in21k"
  if optimizer == "adamw":
    recipes.adamw_finetune(config)
  elif optimizer != "sgd":
    raise ValueError(f"configs/finetune.py:{optimizer}: 'sgd' or 'adamw'")
  return config
