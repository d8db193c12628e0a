"""The command `mlpvision`, and `python -m mlpvision`: starts one of the commands by its name."""

import difflib
import os
import runpy
import sys

# Name -> (module, what it does).
COMMANDS = {
  "train": ("mlpvision.train", "Train a model, or resume a run"),
  "evaluate": ("mlpvision.evaluate", "Measure the exact accuracy of a run or of published weights"),
  "predict": ("mlpvision.predict", "Predict classes, label maps or objects of images"),
  "demo": ("mlpvision.demo", "Open a page in the browser to try a model"),
  "fewshot": ("mlpvision.fewshot", "Measure few-shot accuracy, or a linear probe, of any weights"),
  "average": ("mlpvision.average", "Average checkpoints into one weight file"),
  "prepare": ("mlpvision.prepare", "Prepare a dataset for training"),
  "preview": ("mlpvision.preview", "Draw augmented training images with their targets"),
  "draw": ("mlpvision.draw", "Draw receptive fields, feature maps, saliency, confusion"),
  "curves": ("mlpvision.reporting.curves", "Redraw the curves of a run"),
  "export": ("mlpvision.export", "Export a trained model as StableHLO, ONNX, safetensors, or for the Hub"),
  "cost": ("mlpvision.cost", "Count parameters and multiply-accumulates"),
  "plan": ("mlpvision.plan", "Predict memory and time on TPUs or GPUs that are not attached"),
  "benchmark": ("mlpvision.benchmark", "Measure loading, the train step, and both together"),
}


def main() -> None:
  """Runs the command that sys.argv names."""
  program = "mlpvision"
  spec = sys.modules["__main__"].__spec__
  if spec and spec.name == "mlpvision.__main__":
    program = "python -m mlpvision"
  name = sys.argv[1] if len(sys.argv) > 1 else "--help"
  if name in ("--help", "-h", "help"):
    print(f"MLP vision models in JAX. Usage: {program} COMMAND [FLAGS]\n")
    for command, (_, line) in COMMANDS.items():
      print(f"  {command:<9}  {line}")
    print(f"\n{program} COMMAND --help explains a command.")
    return
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f'Did you mean "{near[0]}"?' if near else f"{program} --help lists them"
    print(f"error: no command {name!r}. {hint}", file=sys.stderr)
    sys.exit(2)
  sys.path.append(os.getcwd())  # as for `python -m`, but last: configs/ and docs/ of the repository are in its root
  sys.argv = [f"{program} {name}", *sys.argv[2:]]
  runpy.run_module(COMMANDS[name][0], run_name="__main__")


if __name__ == "__main__":
  main()
