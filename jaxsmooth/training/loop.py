"""The training loop: steps, records, evaluations, checkpoints, resumption."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import CheckpointError, ConfigError, NotFiniteError, PreemptedError, arguments_checked
from ..mitigations.own import Own
from .accelerators import peak_flops, step_flops
from .checkpointing import Checkpoints
from .config import LENGTH, RESUMABLE, FinetuneConfig
from .data.catalogue import Entry
from .data.pipeline import TaskStream, make_stream
from .data.tasks import TrainBatch
from .dropout import generator
from .evaluate import evaluate
from .export import export_model
from .guards.divergence import Watch
from .guards.lock import alone_in
from .guards.preemption import Preemption
from .guards.stopping import EarlyStopping
from .logging import Log, Meter, Recorder, read_records
from .probe import Probe
from .run import Run, planned_steps, prepare, run_folder
from .sharding import on_host, place_batch, reads_share
from .step import StepMetrics, TrainState, compile_step


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a finished run.

    Attributes:
      steps: how many were done, over all resumptions.
      begun: the step that it went on from; 0 for a run from its start, `steps` for one that was finished before.
      stopped_early: whether patience ran out before the last step.
      best_step: whose parameters are exported.
      scores: on the validation split, of the best step.
      folder: of the run.
    """

    steps: int
    begun: int
    stopped_early: bool
    best_step: int
    scores: dict[str, float]
    folder: Path


@arguments_checked
def finetune(
    config: FinetuneConfig,
    *,
    progress: bool = False,
    log: Log | None = None,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> Outcome:
    """Fine-tune, from the start or from the newest whole checkpoint in `config.out`; export the best parameters.

    Args:
      config: the run's settings; they are written to `config.json` in its folder.
      progress: whether to show on stderr how far the run is.
      log: is called with step and numbers of every record that metrics.jsonl gets, of several processes in the first;
        what it raises ends the run.
      remedies: of your own, by the name that `config.remedy` has: `Edits` or a function (model, batch) -> `Edits`. They
        are code and not written down: `evaluate`, `predict` and a resumed run need them again.
      tasks: of your own, by the name that `config.task` has: an `Entry` of `training.data.catalogue`.

    Returns:
      The `Outcome`; the folder holds metrics.jsonl, events/, checkpoints/ and best/ (see `export_model`).

    Raises:
      DivergedError: a loss, a gradient or a parameter that is not finite; the checkpoints from before it are kept.
      PreemptedError: SIGTERM came; a checkpoint was saved. The same call goes on from it.
      StorageError: a full disk, or a folder that another run holds.
      JaxsmoothError: settings that name nothing, do not fit each other, or are not those the folder was begun with.

    >>> import jaxsmooth
    >>> jaxsmooth.finetune("minilm-l6")
    Traceback (most recent call last):
    jaxsmooth.errors.ConfigError: config must be a FinetuneConfig, as FinetuneConfig(model="minilm-l6"); got str.
    """
    if not isinstance(config, FinetuneConfig):
        raise ConfigError(
            f'config must be a FinetuneConfig, as FinetuneConfig(model="minilm-l6"); got {type(config).__name__}.'
        )
    if not (log is None or callable(log)):
        raise ConfigError(f"log must be a function of a step and numbers by name; got {log!r:.80}.")
    config = with_generator(config)
    check_folder(config)
    folder, begun = config.out, config.out.is_dir()
    with contextlib.ExitStack() as held:
        if begun:  # a folder that is held is refused before the model is loaded
            held.enter_context(alone_in(folder))
        before = _config_in(folder)
        run = prepare(config, remedies=remedies, tasks=tasks)
        _check_longer(before, run)
        folder.mkdir(parents=True, exist_ok=True)
        if not begun:
            held.enter_context(alone_in(folder))
        check_folder(config)  # another run may have begun and ended meanwhile
        if progress and run.notice:
            print(f"jaxsmooth: {run.notice}.", file=sys.stderr)
        return _run(run, show=progress, log=log)


def with_generator(config: FinetuneConfig) -> FinetuneConfig:
    """The settings with dropout's generator named: the one that the run in the folder was begun with, if there is one.

    Args:
      config: the run's settings.

    >>> with_generator(FinetuneConfig()).prng  # on a CPU
    'threefry2x32'
    """
    before = _config_in(config.out)
    chosen = generator(before.prng if before and config.prng == "auto" else config.prng)
    return dataclasses.replace(config, prng=chosen)  # type: ignore[arg-type]


def _run(run: Run, *, show: bool, log: Log | None) -> Outcome:
    folder, checkpoints_folder = run_folder(run.config)
    if jax.process_index() == 0:
        run.config.save(folder / "config.json")
    with Checkpoints(checkpoints_folder, keep=run.config.keep) as checkpoints, open_stream(run) as stream:
        outcome = _train(run, checkpoints, stream, show=show, log=log)
        checkpoints.wait()
        step = export(run, checkpoints)
    if step != outcome.best_step:  # that checkpoint was damaged
        outcome = dataclasses.replace(outcome, best_step=step, scores=_recorded_scores(folder, step))
    return outcome


def check_folder(config: FinetuneConfig) -> None:
    """Refuse a folder that a run with other settings has begun.

    Args:
      config: the run's settings.

    Raises:
      ConfigError: names the setting, what it was and what it is.
    """
    found = _config_in(config.out)
    if found is None:
        return
    before, now = found.to_dict(), config.to_dict()
    for name in now:
        if name not in (*RESUMABLE, *LENGTH) and before[name] != now[name]:
            raise ConfigError(
                f"{config.out} holds a run with {name}={before[name]!r}; got {now[name]!r}. "
                "Choose another --out, or go on with the same settings."
            )


def _config_in(folder: Path) -> FinetuneConfig | None:
    path = folder / "config.json"
    return FinetuneConfig.read(path) if path.exists() else None


def _check_longer(before: FinetuneConfig | None, run: Run) -> None:
    """Refuse to end a run sooner than it was begun to: rates that are past were those of its own length.

    Raises:
      ConfigError: fewer steps.
    """
    steps = run.steps if before is None else planned_steps(before, run.steps_per_epoch)
    if run.steps < steps:
        raise ConfigError(
            f"{run.config.out} holds a run of {steps} steps, which can go on for more, not for fewer; got {run.steps}. "
            "Choose another --out."
        )


def open_stream(run: Run) -> TaskStream:
    """The endless stream of this process's training batches.

    Args:
      run: from `prepare`.
    """
    share = reads_share(run.mesh)
    return make_stream(
        run.train,
        batch_size=run.config.batch_size,
        seed=run.config.seed,
        process_index=jax.process_index() if share else 0,
        process_count=jax.process_count() if share else 1,
    )


def _train(run: Run, checkpoints: Checkpoints, stream: TaskStream, *, show: bool, log: Log | None) -> Outcome:
    config = run.config
    watch = Watch(run.trainer.schedule, checkpoints.newest)
    state, stopping, pending = _begin(run, checkpoints, stream, watch)
    begun = done = int(state.step)
    probe, every = _probe(run), config.eval_every or run.steps_per_epoch
    last = begun if _exhausted(config, stopping) else run.steps
    options: dict[str, Any] = {"logger": config.logger, "log": log, "config": config.to_dict()}
    first = jax.process_index() == 0
    recorder = Recorder(config.out, step=begun, steps=run.steps, progress=show, writes=first, **options)
    with recorder, Preemption() as preemption:
        meter = Meter(peak_flops(config.precision))
        for done, now in _steps(run, state, stream, recorder, meter, pending, watch, range(begun, last)):
            stops, score, evaluates = preemption.reached(done), None, done % every == 0 or done == run.steps
            if not (stops or evaluates) and done % config.checkpoint_every:
                continue
            jax.block_until_ready(now)  # the steps' own time, before the meter pauses
            with meter.paused():
                watch.check_steps(pending, done)
                watch.check_state(now, done)
                if evaluates:
                    scores, score = _evaluate(run, now, probe, done, recorder, watch)
                    stopping = stopping.after(done, score, scores)
                extra: dict[str, Any] = {"stream": stream.get_state(), "progress": dataclasses.asdict(stopping)}
                extra["pending"] = [[float(m.loss), float(m.gradient_norm), int(m.tokens)] for m in pending]
                checkpoints.save(done, now, extra, score=score)
            # Asked again: an evaluation is long, and SIGTERM may have come meanwhile.
            if stops or preemption.noticed:
                checkpoints.wait()
                raise PreemptedError(
                    f"ended by SIGTERM after step {done} of {run.steps}, which is saved in {config.out}; "
                    "the same command goes on from there."
                )
            if _exhausted(config, stopping):
                break
    return Outcome(done, begun, done < run.steps, stopping.best_step, stopping.scores, config.out)


def _evaluate(
    run: Run, state: TrainState, probe: Probe | None, step: int, recorder: Recorder, watch: Watch
) -> tuple[dict[str, float], float]:
    """Scores on the validation split and the one that counts; a score that is not defined counts as the worst."""
    model = averaged(state)
    try:
        scores = evaluate(run.trainer, model, run.validation, run.mesh, batch_size=run.config.batch_size)
    except NotFiniteError as error:
        raise watch.blame(error, step) from error
    numbers = {f"validation/{name}": value for name, value in scores.items()}
    recorder.add(step, {**numbers, **(probe.measure(model) if probe else {})})
    score = scores[run.train.task.metric]
    return scores, -math.inf if math.isnan(score) else score


def _exhausted(config: FinetuneConfig, stopping: EarlyStopping) -> bool:
    return bool(config.patience) and stopping.worse >= config.patience


def _begin(
    run: Run, checkpoints: Checkpoints, stream: TaskStream, watch: Watch
) -> tuple[TrainState, EarlyStopping, list[StepMetrics]]:
    """Where to go on: the state, the best evaluation so far, and the metrics of steps that are not logged yet."""
    shapes = run.shapes()
    restored = checkpoints.restore(shapes)
    checkpoints.require_room(shapes, restored.step if restored else 0)  # better now than after hours
    if restored is None:
        state = run.first_state()
        watch.check_state(state, 0)
        return state, EarlyStopping(), []
    stream.set_state(restored.extra["stream"])
    extra = restored.extra
    pending = [StepMetrics(*(jnp.asarray(number) for number in numbers)) for numbers in extra.get("pending", [])]
    return restored.state, EarlyStopping(**extra["progress"]), pending


def _steps(
    run: Run,
    state: TrainState,
    stream: TaskStream,
    recorder: Recorder,
    meter: Meter,
    pending: list[StepMetrics],
    watch: Watch,
    steps: range,
) -> Iterator[tuple[int, TrainState]]:
    """Train: yield every step's number and state, and log loss and rates each `log_every` steps."""
    config, encoder = run.config, run.model.encoder.config
    advance: Callable[[TrainState, TrainBatch], tuple[TrainState, StepMetrics]] = compile_step(run.trainer)
    untimed = sum(int(metrics.tokens) for metrics in pending)  # of steps before an interruption
    lengths: set[int] = set()
    most = len({min(bucket, config.max_length) for bucket in run.tokenizer.buckets})
    for number in (step + 1 for step in steps):
        data = next(stream)
        length = data.batch.mask.shape[1]
        if length not in lengths:
            lengths.add(length)
            recorder.bar.compiling(length, len(lengths), most)
        state, metrics = advance(state, place_batch(data, run.mesh, rows=config.batch_size))
        rows = config.batch_size * run.train.task.choices
        meter.add(0, step_flops(encoder, rows, length, sharing=run.sharing))
        recorder.bar.note()
        recorder.bar.reach(number)
        pending.append(metrics)  # left on the device: reading each would wait for each
        if number % config.log_every == 0 or number == run.steps:
            watch.check_steps(pending, number)
            numbers = _summary(run, pending, number)
            meter.tokens, untimed = int(numbers.pop("tokens")) - untimed, 0
            numbers |= {f"speed/{name}": value for name, value in meter.read().items()}
            recorder.add(number, numbers, shown=_bar_text(numbers))
            pending.clear()
        yield number, state


def _summary(run: Run, pending: list[StepMetrics], number: int) -> dict[str, Any]:
    """Means over the steps since the last record, and the tokens of them all."""
    values = [(float(m.loss), float(m.gradient_norm), int(m.tokens)) for m in pending]
    loss, norm, tokens = np.array(values, np.float64).T
    rate = float(run.trainer.schedule(np.int32(number - 1)))
    return {
        "train/loss": float(loss.mean()),
        "train/gradient_norm": float(norm.mean()),
        "train/learning_rate": rate,
        "tokens": tokens.sum(),
    }


def _bar_text(numbers: dict[str, float]) -> str:
    mfu = f", {numbers['speed/mfu']:.0%} of the peak FLOPs" if "speed/mfu" in numbers else ""
    return f"loss {numbers['train/loss']:.3f}, {numbers['speed/tokens_per_second']:,.0f} tokens/s{mfu}"


def _probe(run: Run) -> Probe | None:
    """The probe on the first validation sentences, as many as the settings say."""
    if not run.config.probe:
        return None
    size = min(run.config.probe, len(run.validation))
    with make_stream(run.validation, batch_size=size, shuffle=False, pool=1) as stream:
        return Probe(run.trainer, next(stream).batch)


def averaged(state: TrainState) -> Any:
    """The parameters that are evaluated and exported: the average if one is kept.

    Args:
      state: of the run.

    Returns:
      A `TaskModel`.
    """
    return state.model if state.ema is None else state.ema


def export(run: Run, checkpoints: Checkpoints) -> int:
    """Write the best parameters to best/, a self-contained folder. All processes must call it.

    Args:
      run: from `prepare`.
      checkpoints: of the run.

    Returns:
      The step that was exported.

    Raises:
      CheckpointError: there is no whole checkpoint.
    """
    restored = checkpoints.restore_best(run.shapes())
    if restored is None:
        raise CheckpointError(f"{checkpoints.folder} holds no whole checkpoint: nothing to export.")
    model = on_host(averaged(restored.state))
    folder = run.config.out / "best"
    if jax.process_index() == 0:
        export_model(model, run.train.task, run.tokenizer, run.config, folder, step=restored.step)
    return restored.step


def _recorded_scores(folder: Path, step: int) -> dict[str, float]:
    """The scores that the run logged at a step; none where it was not evaluated then."""
    prefix = "validation/"
    records = [record for record in read_records(folder) if record["step"] == step]
    return {k.removeprefix(prefix): v for record in records for k, v in record.items() if k.startswith(prefix)}
