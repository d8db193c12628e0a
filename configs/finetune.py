"""Fine-tunes any weights on any dataset, with a new head.

  python train.py --config=configs/finetune.py --config.init_from=WEIGHTS --config.model.name=NAME \\
    --config.data.name=folder:PATH --workdir=runs/finetuned

WEIGHTS is a workdir, a weight file or a name listed in docs/weights.md. NAME is its model, or any variant of the same
family: sizes come from the weights. The default recipe is the Mixer paper's, with SGD; configs/finetune.py:adamw uses
AdamW with layer-wise learning-rate decay. To change the resolution: --config.data.image_size=384. To train only the
head: --config.optim.lr_multipliers='(("^(?!head)", 0.0),)'.

Both recipes are for large datasets. For a folder of a few hundred images, configs/finetune.py:small (with AdamW:
small_adamw) has 20 epochs of small batches, which fit a laptop. A folder without splits is cut into two:
--config.data.train_split="train[:90%]" --config.data.eval_split="train[90%:]".
"""

from configs import default, recipes


def get_config(recipe="sgd"):
  """Fine-tuning with the recipe "sgd" or "adamw", or with one of them for a small folder, "small" or "small_adamw"."""
  config = default.get_config()
  recipes.mixer_finetune(config)
  config.model.name = "mixer_b16"
  config.init_from = "mixer_b16.goog_in21k"
  if recipe not in ("sgd", "adamw", "small", "small_adamw"):
    raise ValueError(f"configs/finetune.py:{recipe}: 'sgd', 'adamw', 'small' or 'small_adamw'")
  if recipe.endswith("adamw"):
    recipes.adamw_finetune(config)
  if recipe.startswith("small"):
    recipes.small_finetune(config)
  return config
