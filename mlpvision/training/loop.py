"""The training loop: from a config to a trained model."""

import contextlib
import dataclasses
import os
import time

from etils import epath
import jax
from jax.profiler import TraceAnnotation
import ml_collections
import numpy as np

from mlpvision import config as config_lib, durations, heartbeat, sharding, tasks, workdir as workdir_lib
from mlpvision.checkpoints import Checkpoints
from mlpvision.data import loader
from mlpvision.errors import UserError, printable
from mlpvision.evaluate import evaluators
from mlpvision.reporting import curves, overview, trackers
from mlpvision.reporting.metrics import MetricWriter
from mlpvision.reporting.progress import Progress
from mlpvision.training import memory, optim, pictures, step as step_lib, warm_start
from mlpvision.training.health import Health
from mlpvision.training.profiling import Profile
from mlpvision.training.setup import compile_step, set_up
from mlpvision.training.stopping import SaveClock, StopRequest
from mlpvision.training.watchdog import Watchdog


@dataclasses.dataclass(frozen=True)
class Result:
  """The outcome of `train_and_evaluate`."""

  step: int
  finished: bool  # False if a signal stopped the run; the same call resumes it
  state: step_lib.TrainState
  metrics: dict[str, float]  # of the last evaluation in this call
  summary: str  # the metrics as text
  is_main: bool  # whether this process reports


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: epath.PathLike, stop: StopRequest | None = None
) -> Result:
  """Trains for config.duration, or resumes the run in `workdir`, and evaluates. Configs are in configs/default.py.

  workdir: a local or gs:// directory for checkpoints, metrics.jsonl, TensorBoard events and curves.png.
  stop: the entered context of a command; by default, signals stop the run from its first step on.

  Raises UserError: invalid input (before the first step), another run in `workdir`, a loss that is not finite, or a
  checkpoint cannot be saved.
  """
  config_lib.check(config)
  trackers.check_installed(config.reporting.writers)
  _make_writable(workdir)
  best = dict(best=config.checkpoint.best, direction=evaluators.direction(config))
  with (
    Watchdog(durations.to_seconds(config.hang_timeout)) as watchdog,
    workdir_lib.hold(workdir),
    Checkpoints(workdir, config.checkpoint.keep, **best) as checkpoints,
    contextlib.ExitStack() as opened,
  ):
    with memory.readable_errors():
      return _run(config, workdir, checkpoints, stop, watchdog, opened.enter_context)


def _run(config, workdir, checkpoints, stop, watchdog, entered):
  # Cheap checks come first: the config of an existing run, then data, devices and durations, and finally the source of
  # a warm start, which may be a download.
  saved = checkpoints.read_meta()
  if saved:
    config = warm_start.with_model_options(config, saved.get("from_weights", {}))
    if differences := config_lib.differences(saved["config"], config_lib.to_json(config)):
      listed = "\n  ".join(differences)
      raise UserError(
        f"{workdir} holds a run of another config (old -> new):\n  {listed}\n"
        "Use the old config to resume that run, or a new --workdir."
      )
  with watchdog.paused():
    setup = set_up(config, warm=bool(config.init_from) and saved is None)
  if saved and saved.get("images", setup.train_split.identity) != setup.train_split.identity:
    raise UserError(
      f"{workdir} holds a run on other images than {setup.train_split.name} has now; it started on"
      f" {saved['config']['data']['name']}.\nA run continues on the images it started with, which may be moved. For"
      f" others, use a new --workdir; --config.init_from={workdir} starts from this run's weights."
    )
  class_names, as_json = setup.train_split.class_names, config_lib.to_json(setup.config)
  # The model options that the config does not have were taken from the weights.
  options = {name: value for name, value in as_json["model"].items() if name not in config.model}
  from_weights = saved["from_weights"] if saved else options
  config = setup.config
  meta = dict(config=as_json, class_names=class_names, from_weights=from_weights, images=setup.train_split.identity)
  memory.check_state(setup)
  # Where the run starts, in this order: 1. at its own newest intact checkpoint,
  state, saved = checkpoints.restore(setup.abstract)
  start_step = 0 if state is None else int(state.step)
  origin = f"resuming from step {start_step}" if start_step else ""
  if state is None:
    loaded = None
    if setup.source:  # 2. from the parameters in config.init_from,
      loaded, origin = warm_start.parameters(config, setup.source, setup.abstract.params, class_names)
    if from_weights:
      origin += f"\nmodel as in the weights: {', '.join(f'{name}={value}' for name, value in from_weights.items())}"
    state = step_lib.create_state(setup.init, setup.abstract, config.seed, loaded)  # 3. or from random ones

  is_main = jax.process_index() == 0
  writers = config.reporting.writers
  writer = entered(MetricWriter(workdir, start_step, writers, as_json)) if is_main else None
  has_pictures = bool(trackers.chosen(writers)) and start_step < setup.total_steps
  lengths = dict(total_steps=setup.total_steps, steps_per_epoch=setup.steps_per_epoch)
  printing = dict(every=durations.to_seconds(config.print_every), quiet=not is_main)
  progress = Progress(start_step=start_step, **lengths, batch_size=config.data.batch_size, **printing)
  common, opened = (setup.model, class_names, config, setup.mesh), (setup.train_split, setup.eval_split)
  of_run = dict(opened=opened, trained_on=config.data.name)
  entries = evaluators.entries(config).items()
  evaluations = {name: evaluators.make(entry, *common, **of_run)[0] for name, entry in entries}

  def write(step, scalars):
    if writer and step > start_step:  # earlier metrics are on disk
      writer.write(step, epoch=step / setup.steps_per_epoch, **scalars)

  def write_picture(step, name):
    if writer:
      writer.write_picture(step, name, epath.Path(workdir) / f"{name}.png")

  def log(step, pending):
    skipped = sum(not m["finite"] for m in pending)
    replaced = sum(int(m["replaced"]) for m in pending)
    counted = [m for m in pending if m["finite"]] or pending
    names = counted[0].keys() - {"finite", "replaced"}
    means = {name: float(np.mean([float(m[name]) for m in counted])) for name in names}
    scalars = {f"train/{name}": value for name, value in means.items() if np.isfinite(value)}
    scalars |= {"train/skipped": skipped, "train/replaced": replaced}
    scalars["train/learning_rate"] = float(setup.schedule(step - 1))
    write(step, scalars | progress.report(step, means["loss"]))
    if skipped:
      progress.say(f"step {step}: skipped {skipped} steps since the last line: loss or gradient not finite")
    if replaced:
      progress.say(f"step {step}: {replaced} broken images since the last line were replaced by others")

  def mean_loss(pending):
    found = [float(m["loss"]) for m in jax.device_get(pending) if m["finite"]]
    return float(np.mean(found)) if found else float("nan")

  def evaluate(step, state, names):
    results = {}
    for name in names:
      started = time.perf_counter()
      variables = {"params": optim.evaluation_params(state.opt_state, state.params), **state.stats}
      found = evaluators.run(name, evaluations[name], variables, state.ema_variables)
      write(step, found)
      progress.say(f"step {step}: {evaluators.summary(found)}")
      progress.pause(time.perf_counter() - started)
      results |= found
    return results

  _say_overview(setup, origin, workdir, progress)
  step, stopped, results = start_step, False, {}
  pending = saved["pending"] if saved else []  # metrics of the steps since the last logged one
  if start_step < setup.total_steps:
    train_steps = {}  # by the shape of a batch's images
    of_teacher = [setup.teacher.placed()] if setup.teacher else []
    for i, spec in enumerate(specs := tasks.batch_specs(config)):
      with watchdog.paused():
        train_step, seconds = compile_step(setup, i)
      height, width, _ = spec["image"][0]
      train_steps[height, width] = train_step
      what = f" for images of {height} x {width}" if len(specs) > 1 else ""
      progress.say(f"compiled{what} in {seconds:.0f} s; {overview.compiled_step(train_step, config.data.batch_size)}")
      memory.check_step(setup, train_step)
    if kept := overview.kept_programs():
      progress.say(kept)
    if has_pictures and is_main and not start_step:
      with workdir_lib.readable_errors(path := epath.Path(workdir) / "samples.png"):
        pictures.samples(setup.train_split, config, path)
      write_picture(0, "samples")
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
    profile = Profile(durations.profiled_steps(config.profile), workdir)
    progress.restart()

    # The order matters: a step's metrics must be on disk before its checkpoint.
    with contextlib.nullcontext(stop) if stop else StopRequest() as stop, profile:
      stop.running = True
      while step < setup.total_steps and not stopped:
        with progress.waiting(), TraceAnnotation("wait for data"):
          batch = next(batches)
        with profile.step(step + 1), jax.transfer_guard("disallow"):
          state, metrics = train_steps[batch["image"].shape[1:3]](state, batch, *of_teacher)
        step += 1
        profile.end_step(step, metrics)
        pending.append(metrics)
        health.watch(step, metrics)  # waits for the previous step, so the loop is one step ahead of the device
        if len(pending) > 1 and progress.is_late():
          progress.show(step - 1, mean_loss(pending[:-1]))

        is_last = step == setup.total_steps
        stopped = stop.is_due(step)
        due = {name for name, interval in setup.every.items() if is_last or step % interval == 0}
        if is_last or stopped or ("log" in due and save_clock.is_due()):
          due.add("checkpoint")
        if due:
          health.settle()
        if "log" in due:
          with TraceAnnotation("log"):
            log(step, jax.device_get(pending))
            pending = []
        with TraceAnnotation("evaluate"):
          scores = evaluate(step, state, [name for name in evaluations if name in due])
        results |= scores
        if "checkpoint" in due:
          with TraceAnnotation("save"):
            pending = [{name: float(value) for name, value in m.items()} for m in jax.device_get(pending)]
            params = optim.evaluation_params(state.opt_state, state.params)
            evaluated = None if params is state.params else params
            checkpoints.save(step, state, meta | {"pending": pending}, scores, evaluated)
        checkpoints.check_for_errors()
        heartbeat.beat(f"step {step}")
  else:
    results = evaluate(step, state, evaluations)

  checkpoints.wait()
  if config.checkpoint.best and (best := checkpoints.best_step()):
    progress.say(f"best checkpoint: {workdir}/checkpoints/{best[0]} with {config.checkpoint.best} {best[1]:.4f}")
  checkpoints.close()
  finished = step == setup.total_steps
  if has_pictures and finished:
    variables = {"params": optim.evaluation_params(state.opt_state, state.params), **state.stats}
    if pictures.confusion(setup, variables, epath.Path(workdir) / "confusion.png"):
      write_picture(step, "confusion")
  if writer:
    curves.draw(workdir)
    if has_pictures and finished:
      write_picture(step, "curves")
    writer.close(finished=finished)
  # In the order of the evaluators, of which some may have run more recently than others.
  ordered = sorted(results.items(), key=lambda item: list(evaluations).index(item[0].partition("/")[0]))
  summary = evaluators.summary(dict(ordered))
  return Result(step, finished, state, results, summary, is_main)


def _say_overview(setup, origin, workdir, progress):
  split = setup.train_split
  progress.say(f"{setup.config.model.name} on {split.name}: {len(split):,} images, {len(split.class_names)} classes")
  progress.say(overview.parameters(setup.abstract.params))
  progress.say(overview.mesh(setup.mesh))
  progress.say(f"{setup.total_steps:,} steps of {setup.config.data.batch_size} images; everything goes to {workdir}")
  if len(split) < setup.config.data.batch_size:
    progress.say("note: data.batch_size is larger than the training split; a smaller one gives more steps per epoch")
  if setup.note:
    progress.say(f"note: {printable(setup.note)}")
  if origin:
    progress.say(origin)


def _make_writable(workdir):
  workdir = epath.Path(workdir)
  try:
    os.fspath(workdir).encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f"the name of the workdir {workdir} is not valid UTF-8, which TensorBoard's writer needs"
    ) from error
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / f".write_test_{jax.process_index()}"
    probe.write_text("")
    probe.unlink()
  except OSError as error:
    raise UserError(f"cannot write to the workdir {workdir}: {error}") from error
