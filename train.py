"""Trains a model, or resumes a run: python train.py --config=configs/quickstart.py [--workdir=DIR] [--config.x.y=...]

It is `mlpvision train`; see mlpvision/train.py.
"""

import runpy

if __name__ == "__main__":
  runpy.run_module("mlpvision.train", run_name="__main__")
