"""The one place where all parts meet: from a config to a trained model."""

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

from etils import epath
import jax
import ml_collections
import numpy as np

from mlpvision import config as config_lib, sharding
from mlpvision.checkpoints import Checkpoints, is_saved
from mlpvision.data import loader
from mlpvision.errors import UserError
from mlpvision.evaluate.evaluator import Evaluator
from mlpvision.fewshot import linear_probe
from mlpvision.reporting import curves, overview
from mlpvision.reporting.metrics import MetricWriter
from mlpvision.reporting.progress import Progress
from mlpvision.training import state as state_lib, warm_start
from mlpvision.training.health import Health
from mlpvision.training.setup import compile_step, set_up
from mlpvision.training.stopping import SaveClock, StopRequest
from mlpvision.training.watchdog import Watchdog


@dataclasses.dataclass(frozen=True)
class Result:
  """How a call of `train_and_evaluate` ended."""

  step: int
  finished: bool  # False: stopped by a signal; the same call continues
  state: Any  # TrainState
  metrics: dict[str, float]  # of the last evaluation in this call
  is_main: bool  # whether this is the process that reports


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> Result:
  """Trains for config.duration, or continues the run in `workdir`, and evaluates.

  Args:
    config: as configs/default.py describes it.
    workdir: a local or gs:// directory for checkpoints, metrics.jsonl, TensorBoard events and curves.png.

  Returns:
    Result.

  Raises:
    UserError: something given is wrong, before the first step; or the loss is no longer finite.
  """
  config_lib.check(config)
  _make_writable(workdir)
  checkpoints = Checkpoints(workdir, config.checkpoint.keep, config.checkpoint.best)
  saved_meta = checkpoints.read_meta()
  taken = {}  # fields of the model that the weights decide; once the run is saved, it does without them
  if config.init_from:
    taken = warm_start.options(config) if saved_meta is None else saved_meta.get("taken", {})
    config = _with_model(config, taken)
  setup = set_up(config)
  meta = {"config": config_lib.to_json(config), "class_names": setup.train_split.class_names, "taken": taken}

  # Continue this workdir's own run where there is one, else start at step 0, from given weights or from scratch.
  given, origin = None, ""
  if config.init_from and not is_saved(workdir):
    given, origin = warm_start.read(config.init_from, setup)
  _check_same_run(saved_meta, meta, workdir)
  state, saved_meta = checkpoints.restore(setup.abstract)
  start_step = 0 if state is None else int(state.step)
  if start_step:
    origin = f"continuing from step {start_step}"
  if state is None:
    if config.init_from and given is None:  # what is there was never completed
      given, origin = warm_start.read(config.init_from, setup)
    if taken:
      origin += f"\nmodel as in the weights: {', '.join(f'{name}={value}' for name, value in taken.items())}"
    state = state_lib.create(setup.init, setup.abstract, config.seed, given)

  is_main = jax.process_index() == 0
  writer = MetricWriter(workdir, start_step) if is_main else None
  progress = Progress(
    start_step=start_step,
    total_steps=setup.total_steps,
    steps_per_epoch=setup.steps_per_epoch,
    batch_size=config.data.batch_size,
    quiet=not is_main,
  )
  evaluator = Evaluator(setup.model, setup.eval_split, config, setup.mesh)
  few_shot = linear_probe.of_config(setup.model, config, setup.mesh) if config.fewshot.every else None

  def write(step, scalars):
    if writer and step > start_step:  # what came up to start_step is on disk
      writer.write(step, epoch=step / setup.steps_per_epoch, **scalars)

  def log(step, pending):
    skipped = sum(not m["finite"] for m in pending)
    replaced = sum(int(m["replaced"]) for m in pending)
    counted = [m for m in pending if m["finite"]] or pending
    names = ("loss", "top1", "grad_norm", "update_norm")
    means = {name: float(np.mean([float(m[name]) for m in counted])) for name in names}
    scalars = {f"train/{name}": value for name, value in means.items() if np.isfinite(value)}
    scalars |= {"train/skipped": skipped, "train/replaced": replaced}
    scalars["train/learning_rate"] = float(setup.schedule(step - 1))
    write(step, scalars | progress.report(step, means["loss"]))
    if skipped:
      progress.say(f"step {step}: {skipped} steps since the last line were skipped, with a loss or gradient not finite")
    if replaced:
      progress.say(f"step {step}: {replaced} broken images since the last line were replaced by others")

  def evaluate(step):
    started = time.perf_counter()
    results = {f"val/{name}": value for name, value in evaluator.run(state.params).items()}
    if state.ema is not None:
      results |= {f"val/ema_{name}": value for name, value in evaluator.run(state.ema).items()}
    write(step, results)
    progress.say(f"step {step}: {summary(results)}")
    progress.pause(time.perf_counter() - started)
    return results

  def transfer(step):
    started = time.perf_counter()
    results = few_shot.run(state.params)
    write(step, {f"fewshot/{name}": value for name, value in results.items()})
    progress.say(f"step {step}: " + "  ".join(f"{name} {value:.2%}" for name, value in results.items()))
    progress.pause(time.perf_counter() - started)

  _introduce(setup, origin, workdir, progress)
  step, stopped, results = start_step, False, {}
  pending = saved_meta["pending"] if saved_meta else []  # metrics of the steps since the last logged one
  if start_step < setup.total_steps:
    train_step, seconds = compile_step(setup)
    progress.say(f"compiled in {seconds:.0f} s; {overview.compiled_step(train_step, config.data.batch_size)}")
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    host_batches = loader.train_batches(setup.train_split, config, start_step=start_step, **processes)
    batches = sharding.put_batches(host_batches, setup.mesh)
    health = Health(
      config.optim.nonfinite,
      workdir=workdir,
      image_indices=lambda step: loader.image_indices(setup.train_split, config, step),
      last_checkpoint=checkpoints.wait,
      is_main=is_main,
    )
    save_clock = SaveClock(setup.save_seconds)
    progress.restart()

    # Keep the order: step, log, evaluate, save. What a step logged and scored is on disk before its checkpoint is.
    with StopRequest() as stop, Watchdog(config_lib.to_seconds(config.hang_timeout)) as watchdog:
      while step < setup.total_steps and not stopped:
        with progress.waiting():
          batch = next(batches)
        state, metrics = train_step(state, batch)
        step += 1
        pending.append(metrics)
        health.watch(step, metrics)  # so this is one step ahead of the device, no further

        is_last = step == setup.total_steps
        stopped = checkpoints.reached_preemption(step) or stop.signal_name is not None
        due = {name for name, interval in setup.every.items() if is_last or step % interval == 0}
        if is_last or stopped or ("log" in due and save_clock.is_due()):
          due.add("checkpoint")
        if due:
          health.settle()
        if "log" in due:
          log(step, jax.device_get(pending))
          pending = []
        scores = evaluate(step) if "eval" in due else None
        results = scores or results
        if "fewshot" in due:
          transfer(step)
        if "checkpoint" in due:
          pending = [{name: float(value) for name, value in m.items()} for m in jax.device_get(pending)]
          checkpoints.save(step, state, meta | {"pending": pending}, scores)
        checkpoints.check_for_errors()
        watchdog.beat(f"step {step}")
  else:
    results = evaluate(step)

  checkpoints.wait()
  if config.checkpoint.best and (best := checkpoints.best_step()):
    progress.say(f"best checkpoint: {workdir}/checkpoints/{best[0]} with {config.checkpoint.best} {best[1]:.4f}")
  checkpoints.close()
  if writer:
    writer.close()
    curves.draw(workdir)
  return Result(step, step == setup.total_steps, state, results, is_main)


def summary(results: Mapping[str, float]) -> str:
  """One line for an evaluation's {"val/top1": ..., ...}."""
  averaged = f"  EMA top-1 {results['val/ema_top1']:.2%}" if "val/ema_top1" in results else ""
  return (
    f"top-1 {results['val/top1']:.2%}  top-5 {results['val/top5']:.2%}  loss {results['val/loss']:.4f}{averaged}"
    f"  on {results['val/images']:,} test images"
  )


def _introduce(setup, origin, workdir, progress):
  split = setup.train_split
  progress.say(f"{setup.config.model.name} on {split.name}: {len(split):,} images, {len(split.class_names)} classes")
  progress.say(overview.parameters(setup.abstract.params))
  progress.say(overview.mesh(setup.mesh))
  progress.say(f"{setup.total_steps:,} steps of {setup.config.data.batch_size} images; everything goes to {workdir}")
  if len(split) < setup.config.data.batch_size:
    progress.say("note: a step takes more images than there are; a smaller --config.data.batch_size gives more steps")
  if origin:
    progress.say(origin)


def _with_model(config, fields):
  """A copy of the config whose model has these fields too."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in fields.items():
      if name not in config.model:
        config.model[name] = tuple(value) if isinstance(value, list) else value
  return config


def _make_writable(workdir):
  workdir = epath.Path(workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / f".write_test_{jax.process_index()}"
    probe.write_text("")
    probe.unlink()
  except OSError as error:
    raise UserError(f"cannot write to the workdir {workdir}: {error}") from error


def _check_same_run(saved_meta, meta, workdir):
  if saved_meta is None:
    return
  differences = config_lib.differences(saved_meta["config"], meta["config"])
  if differences:
    listed = "\n  ".join(differences)
    raise UserError(
      f"{workdir} holds a run of another config (old -> new):\n  {listed}\n"
      "Repeat the old config to continue that run, or give a new --workdir."
    )
