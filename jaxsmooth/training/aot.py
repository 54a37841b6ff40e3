"""The real training step compiled for accelerators that are not here: does it fit, what does it move, how fast at best.

Nothing is executed. The compilers are the production ones (libtpu; XLA for CUDA without its libraries and without
autotuning), so what they refuse is refused, and the memory they plan is the memory they plan.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..bert.config import EncoderConfig
from ..bert.params import init_encoder
from ..checkpoints.config_json import config_from_file, family_config
from ..checkpoints.encoder import find_directory
from ..errors import ConfigError
from ..files import atomic_write, dumps_strict
from .accelerators import Target, find_target, forward_flops, step_flops
from .config import AotConfig, FinetuneConfig, Remat
from .data.tasks import Task, TrainBatch
from .dropout import generator
from .guards.memory import abstract_batch, estimate, state_bytes
from .model import TaskModel, cast_floats, init_task_model
from .optimiser import learning_rate, make_optimiser
from .sharding import attention_kernel, batch_shardings, block_placement, constraints, make_mesh, tree_shardings
from .step import Trainer, TrainState, compile_options, compile_step, init_state

SIZES = {
    "bert-base": EncoderConfig(),
    "bert-large": EncoderConfig(width=1024, layers=24, heads=16, mlp_width=4096),
    "modernbert-base": family_config("modernbert", layers=22, mlp_width=1152),
}
"""The two shapes of Devlin et al. (2019), arXiv 1810.04805, and one of Warner et al. (2024), arXiv 2412.13663."""

TASK = Task("ahead of time", "classification", "accuracy", "none", "none", classes=("no", "yes"))


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in the program: how many there are, and bytes of their results on one device.

    Those in a loop over layers count once for each layer.
    """

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class AotReport:
    """What a compiled step needs and allows, per device and step.

    Attributes:
      target: as asked for.
      devices: how many.
      mesh: axis sizes.
      arguments, outputs, temporaries, aliased: bytes, as the compiler plans them.
      memory: their peak: arguments + outputs - aliased + temporaries.
      available: bytes of HBM.
      flops: as the compiler counts; None where it does not say. Loops over layers count once on some compilers.
      bytes_accessed: likewise, HBM traffic.
      model_flops: of the model's matrix products, recomputation left out.
      collectives: by kind.
      seconds: a lower bound on a step's time, no prediction: the longest of computing model_flops at peak; reading
        every argument and writing every output and temporary once through HBM; and passing every collective's result
        once through all links (what goes between slices apart, at a speed that is not known here). Activations that
        are read again, products below peak rate, latencies, and whatever of the three does not overlap come on top,
        so real steps are slower.
      bound: which of the three it is.
      utilisation: the upper bound on model FLOP utilisation that follows; 1 says only that neither memory nor links
        forbid it.
      remat: what the backward pass recomputes; with "auto" the least that fits.
      kernels: calls of attention kernels in the program, one in a loop over layers counted once; 0 where attention is
        explicit.
    """

    target: str
    devices: int
    mesh: dict[str, int]
    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    memory: int
    available: int
    flops: float | None
    bytes_accessed: float | None
    model_flops: float
    collectives: list[Collective]
    seconds: float
    bound: str
    utilisation: float
    remat: str
    kernels: int


def compile_ahead(config: AotConfig) -> AotReport:
    """Compile the training step, or the forward pass alone, and read what the compiler says of it.

    Args:
      config: target, model, mesh and batch.

    Returns:
      Memory, FLOPs, collectives and the bounds that follow.

    Raises:
      ConfigError: no such target, size or mesh, or a step that does not fit into the device's memory.
    """
    encoder = encoder_config(config.model_size)
    if config.length > encoder.max_length:
        raise ConfigError(f"length must be at most {encoder.max_length}, the model's positions; got {config.length}.")
    target = find_target(config.target, config.slices)
    mesh = make_mesh(config.mesh, target.devices)
    step = _make_step(encoder, config, mesh, target.platform)
    with _cudnn_asked_for():
        policies = _likely(step, config, target) if config.remat == "auto" and not config.inference else [config.remat]
        for remat in policies[:-1]:  # the estimate may have been too low
            with contextlib.suppress(DoesNotFitError):
                return _report(encoder, config, target, mesh, _compile(step, config, target, remat), remat)
        return _report(encoder, config, target, mesh, _compile(step, config, target, policies[-1]), policies[-1])


@contextlib.contextmanager
def _cudnn_asked_for() -> Iterator[None]:
    """jax looks for cuDNN as soon as a program with its kernel is traced."""
    try:
        yield
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise ConfigError(
            f"attention's kernel for GPUs needs cuDNN's package, of which jax says: {str(error).rstrip('.')}. "
            "pip install nvidia-cudnn-cu13, or --attention explicit."
        ) from error


def encoder_config(size: str) -> EncoderConfig:
    """A preset, or a model's own configuration.

    Args:
      size: a key of `SIZES`, or a model as `finetune` names it.

    Raises:
      CheckpointError: no such model.
    """
    return SIZES[size] if size in SIZES else config_from_file(find_directory(size) / "config.json")


class DoesNotFitError(ConfigError):
    """A step that needs more memory than a device has."""


class _Step(NamedTuple):
    """What is compiled: the functions, and shapes with shardings of the state (or the model alone) and the data."""

    trainer: Trainer
    state: TrainState | TaskModel
    data: TrainBatch


def _make_step(encoder: EncoderConfig, config: AotConfig, mesh: Any, platform: str) -> _Step:
    settings = FinetuneConfig(
        batch_size=config.batch_size,
        precision=config.precision,
        accumulate=config.accumulate,
        attention=config.attention,
        attention_dropout=config.attention_dropout,
        prng=generator(config.prng, platform),  # type: ignore[arg-type]
    )
    model = jax.eval_shape(lambda: init_task_model(init_encoder(encoder, jax.random.key(0)), TASK, jax.random.key(1)))
    optimiser = make_optimiser(settings, model, 1000)
    trainer = Trainer(
        TASK,
        settings,
        optimiser,
        learning_rate(settings, 1000),
        constrain=constraints(mesh),
        kernel=attention_kernel(config.attention, mesh, platform),
        place=block_placement(mesh),
    )
    if config.inference:
        state = jax.eval_shape(lambda m: cast_floats(m, config.precision), model)
    else:
        state = jax.eval_shape(lambda m: init_state(m, optimiser, settings), model)
    data = abstract_batch(TASK, config.batch_size, config.length)
    where = tree_shardings(state, mesh), batch_shardings(data, mesh)
    placed = jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), (state, data), where
    )
    return _Step(trainer, *placed)


def _likely(step: _Step, config: AotConfig, target: Target) -> list[Remat]:
    """The rematerialisations to try: from the least that is estimated to fit on, the last one in any case."""
    assert isinstance(step.state, TrainState)
    sizes = {"state": state_bytes(step.state), "devices": len(target.devices)}
    needs = estimate(step.trainer, step.state.model, config.batch_size, config.length, **sizes)
    fits = [need.total <= target.chip.memory for need in needs]
    return [need.remat for need in needs][fits.index(True) if any(fits) else -1 :]


def _compile(step: _Step, config: AotConfig, target: Target, remat: Remat) -> jax.stages.Compiled:
    trainer = dataclasses.replace(step.trainer, config=dataclasses.replace(step.trainer.config, remat=remat))
    program = compile_step(trainer) if isinstance(step.state, TrainState) else jax.jit(trainer.logits)
    lowered = program.trace(step.state, step.data).lower(lowering_platforms=(target.platform,))
    # No autotuning: there is no card to time on.
    options = {"xla_gpu_autotune_level": 0} if target.platform == "cuda" else {}
    try:
        return lowered.compile(compiler_options=(options | compile_options(config.compile_effort)) or None)
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text and "exceed" not in text.lower():
            raise
        raise DoesNotFitError(f"the step does not fit on {target.name}: {what_it_needs(text)}. {_ADVICE}") from error


def what_it_needs(text: str) -> str:
    """The numbers in a compiler's message that memory runs out, else its first line.

    Args:
      text: the message.

    >>> what_it_needs("RESOURCE_EXHAUSTED: ... required for HLO temporaries (64.00G) exceeds available HBM (15.75G).")
    'it needs 64.00G of 15.75G HBM'
    """
    size = r"([\d.]+[KMGT])"
    found = re.search(rf"Used {size}\w* of {size}\w* hbm|\({size}\) exceeds[^(]*\({size}\)", text)
    if found is None:
        return text.strip().splitlines()[0][:300]
    needed, available = filter(None, found.groups())
    return f"it needs {needed} of {available} HBM"


_ADVICE = "A smaller --batch-size, --accumulate, --remat full, or a mesh with more fsdp or tensor helps."


def _report(
    encoder: EncoderConfig, config: AotConfig, target: Target, mesh: Any, compiled: jax.stages.Compiled, remat: Remat
) -> AotReport:
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    assert memory is not None
    arguments, outputs, temporaries = (getattr(memory, f"{p}_size_in_bytes") for p in ("argument", "output", "temp"))
    peak = arguments + outputs - memory.alias_size_in_bytes + temporaries
    if peak > target.chip.memory:
        raise DoesNotFitError(
            f"the step does not fit on {target.name}: it needs {peak / 2**30:.2f} GiB of "
            f"{target.chip.memory / 2**30:.2f} GiB. {_ADVICE}"
        )
    text = compiled.as_text() or ""
    collectives = count_collectives(text, encoder.layers)
    counted = forward_flops if config.inference else step_flops
    model = counted(encoder, config.batch_size, config.length) / mesh.size
    times = _least(target, model, arguments + outputs + temporaries, collectives)
    bound = max(times, key=times.__getitem__)
    return AotReport(
        target=config.target,
        devices=mesh.size,
        mesh={axis: size for axis, size in mesh.shape.items() if size > 1},
        arguments=arguments,
        outputs=outputs,
        temporaries=temporaries,
        aliased=memory.alias_size_in_bytes,
        memory=peak,
        available=int(target.chip.memory),
        flops=cost.get("flops"),
        bytes_accessed=cost.get("bytes accessed"),
        model_flops=model,
        collectives=collectives,
        seconds=times[bound],
        bound=bound,
        utilisation=times["computing"] / times[bound],
        remat=remat,
        kernels=len(_KERNEL.findall(text)),
    )


def _least(target: Target, flops: float, moved: int, collectives: list[Collective]) -> dict[str, float]:
    """Seconds that no step can do without, by what takes them."""
    return {
        "computing": flops / target.chip.flops,
        "memory": moved / target.chip.bandwidth,
        "collectives": sum(each.bytes for each in collectives if each.kind != BETWEEN_SLICES) / target.chip.links,
    }


_KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|__cudnn\$fmha\w*)"')
BETWEEN_SLICES = "send"
"""The kind of what a TPU sends to another slice, through its host and the data centre's network."""
_KINDS = f"all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|{BETWEEN_SLICES}"
_COLLECTIVE = re.compile(rf" = (.*?) ({_KINDS})(-start)?\(")
_SHAPE = re.compile(r"(pred|[subf]\d+|bf16|f8\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"(calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?\s*[:=]\s*\{"?n"?\s*[:=]\s*"?(\d+)')
_CHANNEL = re.compile(r"channel_id=(\d+)")


def count_collectives(text: str, layers: int = 1) -> list[Collective]:
    """The collectives of a compiled program's text, by kind.

    One inside a loop counts as often as the loop runs: as often as the program says, else `layers` times, for the
    loops of a step run over the layers. An asynchronous one occurs in the text more than once, under one channel. A
    reduce-scatter of the TPU compiler is an all-reduce in a computation of its own, which keeps a device's part alone.
    What goes to another slice of TPUs is sent, whatever it is part of.

    Args:
      text: the optimised HLO.
      layers: the trip count of loops whose own is not in the text: one too many where a turn was taken out of one.

    Returns:
      One entry per kind, sorted.

    >>> count_collectives("ENTRY main {\\n  %x = f32[2,3]{1,0} all-reduce(%y), to_apply=%add\\n}")
    [Collective(kind='all-reduce', count=1, bytes=24)]
    """
    made: list[tuple[str, str, str, int]] = []
    callers: dict[str, tuple[str, int, str]] = {}
    here, result = "", 0
    for number, line in enumerate(text.splitlines()):
        if start := _COMPUTATION.match(line):
            here, result = start[1], _bytes(line.partition(" -> ")[2])
            continue
        for how, called in _CALLED.findall(line):
            trips = _TRIPS.search(line)
            callers[called] = here, (int(trips[1]) if trips else layers) if how == "body" else 1, how
        if found := _COLLECTIVE.search(line):
            channel, size, kind = _CHANNEL.search(line), _bytes(found[1]), found[2]
            if kind == BETWEEN_SLICES:
                size -= _bytes("u32[]")  # beside what is sent stands the channel's state
            name = channel[1] if channel else f"line {number}"
            if here.startswith("all-reduce-scatter"):
                kind, size = "reduce-scatter", result
            # An asynchronous start gives operand and result; a collective's own size is the larger.
            made.append((kind, name, here, size if not found[3] else max(size // 2, 1)))

    def times(computation: str) -> int:
        caller, trips, _ = callers.get(computation, ("", 1, ""))
        return trips * times(caller) if caller else 1

    def loop(computation: str) -> str:
        """The loop's body that it is part of, or the program's beginning."""
        caller, _, how = callers.get(computation, ("", 1, "body"))
        return computation if how == "body" else loop(caller)

    # A turn that the compiler takes out of a loop keeps the channels of those that stay in it.
    once = {(kind, name, loop(at)): (at, size) for kind, name, at, size in reversed(made)}
    counted = [(kind, times(at), size) for (kind, *_), (at, size) in once.items()]
    return [
        Collective(kind, sum(n for k, n, _ in counted if k == kind), sum(n * z for k, n, z in counted if k == kind))
        for kind in sorted({kind for kind, _, _ in counted})
    ]


def _bytes(shapes: str) -> int:
    total = 0
    for dtype, sizes in _SHAPE.findall(shapes):
        bits = re.search(r"\d+", dtype)
        item = 1 if dtype == "pred" else max(int(bits[0]) // 8, 1) if bits else 1
        total += item * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def write_aot(report: AotReport, path: Path) -> Path:
    """Write the numbers as JSON.

    Args:
      report: from `compile_ahead`.
      path: the file; missing folders are made.

    Returns:
      The path.
    """
    return atomic_write(path, dumps_strict(dataclasses.asdict(report), indent=2) + "\n")
