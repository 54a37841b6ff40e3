"""A run made ready: model, data, functions and layout, everything checked before the first step."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ..bert.params import Encoder, first_blocks
from ..checkpoints.encoder import load
from ..errors import ConfigError, OptionError, did_you_mean
from ..inputs.tokenizer import Tokenizer
from ..mitigations import METHODS, NamedRemedy, OwnRemedy, own_remedy, parse_remedies
from ..mitigations.own import Own
from .accelerators import step_flops
from .config import MOST_STEPS, NO_PROGRAM, FinetuneConfig, shared_blocks
from .data.catalogue import Entry, load_task
from .data.task_data import TaskData
from .data.tasks import Task
from .export import drawn_fusion, trained_fusion
from .guards.memory import Need, choose_remat, device_memory, estimate, state_bytes
from .model import TaskModel, init_task_model
from .optimiser import learning_rate, make_optimiser, warmup_steps
from .sharding import attention_kernel, block_placement, constraints, make_mesh, place_tree, tree_shardings, unrolled
from .step import Trainer, TrainState, init_state

SMALL_BATCH = 1024
"""A batch of so many records may be larger than the split: what is filled up costs little."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run, checked against each other.

    Attributes:
      config: its settings.
      tokenizer: the model's.
      train: training split.
      validation: split that the best checkpoint is chosen by.
      model: the parameters before the first step.
      trainer: the functions.
      mesh: devices.
      steps: optimiser steps.
      steps_per_epoch: batches that hold every record once.
      notice: why the backward pass recomputes what the settings leave open; "" where it does not.
    """

    config: FinetuneConfig
    tokenizer: Tokenizer
    train: TaskData
    validation: TaskData
    model: TaskModel
    trainer: Trainer
    mesh: Mesh
    steps: int
    steps_per_epoch: int
    notice: str = ""

    @property
    def sharing(self) -> int:
        """How many layers use the attention of another."""
        shared = shared_blocks(self.config.share_attention)
        return 0 if shared is None else shared[1] - shared[0]

    def shapes(self) -> TrainState:
        """The state's shapes and shardings, nothing allocated."""
        state = jax.eval_shape(self._init, self.model)
        where = tree_shardings(state, self.mesh)
        return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, where)

    def first_state(self) -> TrainState:
        """The state before the first step, laid out over the mesh."""
        where = tree_shardings(jax.eval_shape(self._init, self.model), self.mesh)
        return jax.jit(self._init, out_shardings=where)(place_tree(self.model, self.mesh))

    def _init(self, model: TaskModel) -> TrainState:
        return init_state(model, self.trainer.optimiser, self.config)


def prepare(
    config: FinetuneConfig,
    *,
    remedies: Mapping[str, Own] = MappingProxyType({}),
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> Run:
    """Load what a configuration names and check that it fits together.

    Args:
      config: the settings.
      remedies: of the user's own, by the names that `config.remedy` may have.
      tasks: likewise, for `config.task`.

    Returns:
      The run, before its first step.

    Raises:
      JaxsmoothError: an unknown task, model, remedy or mesh; settings that do not fit each other.
    """
    mesh = make_mesh(config.mesh)
    remedy = find_remedy(config.remedy, remedies)
    encoder, tokenizer = load(config.model, check=config.check)
    encoder = _cut(encoder, config)
    if tokenizer is None:
        raise ConfigError(f"{config.model} has no tokenizer; one is needed to read text.")
    if config.max_length > encoder.config.max_length:
        raise ConfigError(
            f"max_length must be at most {encoder.config.max_length}, the model's positions; got {config.max_length}."
        )
    train, validation = (read_split(config, tokenizer, split, tasks=tasks) for split in ("train", "validation"))
    model = _fused_before(config, build_model(config, encoder, train.task, remedy))
    per_epoch = math.ceil(len(train) / config.batch_size)
    steps = planned_steps(config, per_epoch)
    _check_sizes(config, len(train), steps)
    trainer = make_trainer(config, train.task, model, steps, remedy, mesh)
    run = Run(config, tokenizer, train, validation, model, trainer, mesh, steps, per_epoch)
    return _with_remat(run) if config.remat == "auto" else run


def make_trainer(
    config: FinetuneConfig, task: Task, model: TaskModel, steps: int, remedy: NamedRemedy | OwnRemedy | None, mesh: Mesh
) -> Trainer:
    """The functions of a run. Runs that differ in seed, folder or records share one, and so its compiled programs.

    Args:
      config: the run's settings.
      task: kind and number of choices.
      model: the parameters, or their shapes.
      steps: optimiser steps.
      remedy: from `find_remedy`.
      mesh: devices.
    """
    leaves, structure = jax.tree.flatten(model)
    shapes = tuple((leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves)
    usual = FinetuneConfig()
    config = dataclasses.replace(config, **{name: getattr(usual, name) for name in NO_PROGRAM})
    make = _trainer.__wrapped__ if isinstance(remedy, OwnRemedy) else _trainer  # what a user's function does may change
    return make(config, task, structure, shapes, steps, remedy, mesh)


@functools.lru_cache(maxsize=64)
def _trainer(
    config: FinetuneConfig,
    task: Task,
    structure: jax.tree_util.PyTreeDef,
    shapes: tuple[tuple[tuple[int, ...], np.dtype], ...],
    steps: int,
    remedy: NamedRemedy | OwnRemedy | None,
    mesh: Mesh,
) -> Trainer:
    model = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    return Trainer(
        task=task,
        config=config,
        optimiser=make_optimiser(config, model, steps),
        schedule=learning_rate(config, steps),
        remedy=None if remedy is None else remedy.edits,
        constrain=constraints(mesh),
        kernel=attention_kernel(config.attention, mesh),
        place=block_placement(mesh),
        unroll=unrolled(mesh),
    )


def planned_steps(config: FinetuneConfig, per_epoch: int) -> int:
    """The optimiser steps of a run.

    Args:
      config: steps or epochs.
      per_epoch: batches that hold every record once.

    >>> planned_steps(FinetuneConfig(epochs=1.5), 7), planned_steps(FinetuneConfig(steps=5), 7)
    (11, 5)
    """
    return config.steps or math.ceil(config.epochs * per_epoch)


def _cut(encoder: Encoder, config: FinetuneConfig) -> Encoder:
    """The encoder up to the layer whose output is taken.

    Raises:
      ConfigError: a layer that it does not have, or attention shared by such layers.
    """
    layers = config.exit_layer or encoder.config.layers
    if layers > encoder.config.layers:
        raise ConfigError(f"exit_layer must be at most {encoder.config.layers}, the model's last; got {layers}.")
    shared = shared_blocks(config.share_attention)
    if shared is not None and shared[1] >= layers:
        raise ConfigError(f"share_attention must end at layer {layers} or before; got {config.share_attention!r}.")
    return first_blocks(encoder, layers) if config.exit_layer else encoder


def _check_sizes(config: FinetuneConfig, records: int, steps: int) -> None:
    """Refuse numbers that only make sense beside the data."""
    if steps > MOST_STEPS:
        raise ConfigError(
            f"a run has at most {MOST_STEPS:,} steps; {config.epochs:g} epochs of {records} records in batches of "
            f"{config.batch_size} are {steps:,}."
        )
    if warmup_steps(config.warmup, steps) > steps:
        raise ConfigError(
            f"the warm-up must not be longer than the run's {steps} steps; got {config.warmup:g}. Below 1 it is a "
            "share of the steps, from 1 on their number."
        )
    if config.batch_size > max(SMALL_BATCH, records):
        raise ConfigError(
            f"batch_size must be at most {max(SMALL_BATCH, records)}, for there are {records} records to train on; got "
            f"{config.batch_size}. The rest of a batch would be filler."
        )


def _with_remat(run: Run) -> Run:
    """The run with the rematerialisation that is estimated to fit, resolved in its trainer alone.

    Raises:
      ConfigError: nothing fits.
    """
    memory = device_memory()
    if not memory:
        return run
    trainer, config = run.trainer, run.config

    def needs(rows: int, length: int) -> list[Need]:
        sizes = {"state": state_bytes(run.shapes()), "devices": run.mesh.size}
        return estimate(trainer, run.model, rows, length, **sizes)

    need, notice = choose_remat(needs, config.batch_size, config.max_length, memory)
    chosen = dataclasses.replace(trainer, config=dataclasses.replace(config, remat=need.remat))
    return dataclasses.replace(run, trainer=chosen, notice=notice)


def read_split(
    config: FinetuneConfig,
    tokenizer: Tokenizer,
    split: str,
    *,
    each_token: bool = False,
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> TaskData:
    """One split of the run's task.

    Args:
      config: task, folder of its data, length and limit.
      tokenizer: the model's.
      split: "train", "validation" or "test".
      each_token: as for `load_task`.
      tasks: as for `load_task`.

    Raises:
      DataError: as `load_task`.
    """
    return load_task(
        config.task,
        tokenizer,
        split=split,
        max_length=config.max_length,
        data_dir=config.data_dir or None,
        columns=config.columns,
        missing=config.missing,
        limit=config.limit or None,
        each_token=each_token,
        tasks=tasks,
    )


def build_model(
    config: FinetuneConfig, encoder: Encoder, task: Task, remedy: NamedRemedy | OwnRemedy | None
) -> TaskModel:
    """The encoder with fusion and head, both drawn from the run's seed, and with the remedy's change of the weights.

    Args:
      config: seed and fusion.
      encoder: the pretrained one.
      task: says which head.
      remedy: from `find_remedy`.
    """
    if remedy is not None:
        encoder = remedy.change(encoder)
    head_key, fusion_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))
    fusion = drawn_fusion(config, encoder.config, fusion_key)
    return init_task_model(encoder, task, head_key, fusion=fusion)


def _fused_before(config: FinetuneConfig, model: TaskModel) -> TaskModel:
    """Where the run starts from another run's model that fuses the same layers in the same way: with its fusion."""
    drawn = model.fusion
    found = None if drawn is None else trained_fusion(config.model)
    same = drawn is not None and found is not None and type(found) is type(drawn) and found.layers == drawn.layers
    return dataclasses.replace(model, fusion=found) if same else model


def find_remedy(text: str, own: Mapping[str, Own] = MappingProxyType({})) -> NamedRemedy | OwnRemedy | None:
    """The run's remedy by the name that the user gave.

    Args:
      text: as "contranorm:0.3", several joined by "+"; "" for none.
      own: the user's own remedies by name.

    Raises:
      ConfigError: several remedies, or one that draws at random.
      OptionError: no such remedy.
    """
    for name, given in own.items():
        made = own_remedy(name, given)  # a wrong one is refused, whether it is asked for or not
        if name == text:
            found: list[NamedRemedy] | list[NamedRemedy | OwnRemedy] = [made]
            break
    else:
        if not text:
            return None
        if re.split(r"[,:+]", text)[0] not in METHODS:
            known = (*METHODS, *own)
            raise OptionError(
                f"there is no remedy {text!r}; there are {', '.join(known)}.{did_you_mean(text, known)} Your own must "
                "be given in Python each time, also to evaluate and predict: remedies={name: edits}."
            )
        found = parse_remedies(text)
    if len(found) > 1:
        raise ConfigError(f"a run takes one remedy; join those to be used together by '+'; got {text!r}.")
    if found[0].random:
        raise ConfigError(
            f"remedy {text!r} draws the same mask at every step, and in evaluation; a run's own --attention-dropout "
            "draws anew and stops there."
        )
    return found[0]


def describe(run: Run) -> dict[str, Any]:
    """What `--dry-run` prints: shapes, parameters, memory of the state on each device, steps, FLOPs.

    Args:
      run: from `prepare`.

    Returns:
      Numbers and short texts by name.

    The memory is that of parameters, gradients, moments and average; activations come on top (`jaxsmooth aot`).
    """
    parameters, config = jax.tree.leaves(run.model), run.config
    rows = config.batch_size * run.train.task.choices
    return {
        "task": f"{run.train.task.name} ({run.train.task.kind}), {len(run.train)} records to train on, "
        f"{len(run.validation)} to validate",
        "model": f"{config.model}: {run.model.encoder.config.layers} layers, width {run.model.encoder.config.width}",
        "parameters": sum(leaf.size for leaf in parameters),
        "mesh": dict(run.mesh.shape),
        "batch": f"{rows} x {config.max_length} tokens, in {config.accumulate} parts",
        "steps": run.steps,
        "steps_per_epoch": run.steps_per_epoch,
        "state_bytes_per_device": state_bytes(run.shapes()),
        "rematerialisation": run.notice or run.trainer.config.remat.replace("auto", "none"),
        "flops_per_step": step_flops(run.model.encoder.config, rows, config.max_length, sharing=run.sharing),
    }


def run_folder(config: FinetuneConfig) -> tuple[Path, Path]:
    """The run's folder and that of its checkpoints.

    Args:
      config: the run's settings.
    """
    return config.out, config.out / "checkpoints"
