"""A small S2-MLP that an AS-MLP teaches to read digits, on the images of configs/quickstart.py.

  python train.py --config=configs/quickstart_distillation.py:teacher --workdir=runs/teacher
  python train.py --config=configs/quickstart_distillation.py

To compare, the same student learns from labels alone: --config.distill.teacher= --workdir=runs/alone
"""

from configs import quickstart


def get_config(role="student"):
  """role: "student", an S2-MLP with 2 blocks of 32 channels; "teacher", an AS-MLP with two stages."""
  config = quickstart.get_config()
  if role == "teacher":
    del config.model.num_blocks, config.model.directions
    config.model.update(name="asmlp_tiny", hidden_dim=32, depths=(2, 2), patch_size=2)
  elif role == "student":
    config.model.update(num_blocks=2, hidden_dim=32)
    config.distill.update(teacher="runs/teacher", loss="soft", temperature=2.0)
  else:
    raise ValueError(f"unknown role {role!r}; 'student' or 'teacher'")
  return config
