"""A trained model as a self-contained directory: weights, head, tokenizer, and what was trained on what.

Where transformers has a class for the encoder with this head, weights and head are that class's. Elsewhere (layers are
fused, or the family has no class for the task) the encoder is a checkpoint of its own, and head and fusion are in
`head.safetensors`, which only this library reads.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PRNGKeyArray

from ..bert.config import EncoderConfig
from ..bert.fusion import Fusion, init_fusion
from ..bert.params import Encoder
from ..checkpoints.config_json import config_from_file
from ..checkpoints.dropout_keys import dropout_settings
from ..checkpoints.encoder import load
from ..checkpoints.folders.card import model_card, put_card
from ..checkpoints.folders.directory import local_folder
from ..checkpoints.heads import load_with_head
from ..checkpoints.save import save, save_with_head
from ..errors import CheckpointError, ConfigError
from ..files import replaced_together
from ..inputs.normalizer import FILE as NORMALIZER
from ..inputs.tokenizer import Tokenizer
from ..json_reading import loads
from ..types import map_named, named_leaves
from .config import FinetuneConfig, fused_blocks
from .data.tasks import Task
from .model import TaskModel

TRAINED, HEAD = "finetune.json", "head.safetensors"


def export_model(
    model: TaskModel, task: Task, tokenizer: Tokenizer, config: FinetuneConfig, directory: Path, *, step: int = 0
) -> Path:
    """Write everything that `evaluate`, `predict` and `diagnose` need, and that transformers' class for the task reads.

    Args:
      model: arrays on the host.
      task: kind and names of classes.
      tokenizer: the model's.
      config: the run's settings.
      directory: made if it does not exist.
      step: whose parameters these are.

    Returns:
      The directory. An interrupted export leaves the former one whole.
    """
    with replaced_together(directory, "config.json", stale=(HEAD, NORMALIZER)) as new:
        tokenizer.save(new)
        trained = {"task": dataclasses.asdict(task), "config": config.to_dict(), "step": step}
        (new / TRAINED).write_bytes((json.dumps(trained, indent=2) + "\n").encode())
        plain = _saved_with_head(model, task, config, new)
        if not plain:
            rest = {name: np.ascontiguousarray(leaf) for name, leaf in _without_encoder(model).items()}
            safetensors.numpy.save_file(rest, new / HEAD)
            save(model.encoder, new)
        name = Path(directory).absolute().name
        card = model_card(model.encoder, name, plain=plain, kind=task.kind, trained=_facts(task, config, step))
        put_card(new, Path(directory), card)
    return directory


def _facts(task: Task, config: FinetuneConfig, step: int) -> dict[str, Any]:
    """What the card says of the training: the task, and the settings that are not the defaults."""
    defaults = FinetuneConfig().to_dict()
    settings = {name: value for name, value in config.to_dict().items() if value != defaults.get(name)}
    return {
        "task": task.name,
        "kind": task.kind,
        "data": task.source,
        "licence of the data": task.licence,
        **({"classes": list(task.classes)} if task.classes else {}),
        "step": step,
        "made from": config.model,
        "settings other than the defaults": {k: v for k, v in settings.items() if k not in ("task", "model", "out")},
    }


def _saved_with_head(model: TaskModel, task: Task, config: FinetuneConfig, directory: Path) -> bool:
    """Write the model as transformers' class for it, or return False where there is none."""
    if model.fusion is not None:
        return False
    # the names that transformers gives a regression's only output
    labels = task.classes if task.kind == "classification" else ("value",) if task.kind == "regression" else ()
    keys = dropout_settings(
        model.encoder.config.family,
        hidden=config.hidden_dropout,
        attention=config.attention_dropout,
        head=config.head_dropout,
    )
    several = {"problem_type": "single_label_classification"} if len(task.classes) > 1 else {}
    try:
        save_with_head(
            model.encoder, model.head, directory, labels=labels, keys={"finetuning_task": task.name, **several, **keys}
        )
    except ConfigError:  # the family has no class for it
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export_model` wrote, read back.

    Attributes:
      config: the run's settings.
      task: kind and names of classes.
      tokenizer: the model's.
      model: the parameters.
      step: whose parameters they are.
    """

    config: FinetuneConfig
    task: Task
    tokenizer: Tokenizer
    model: TaskModel
    step: int


def is_export(directory: Path) -> bool:
    """Whether a folder is one that `export_model` wrote, not that of a run.

    Args:
      directory: the folder.
    """
    return (directory / TRAINED).exists()


def load_export(directory: Path, shapes: Callable[[Encoder, Task, FinetuneConfig], TaskModel]) -> Exported:
    """Read a directory that `export_model` wrote; nothing else is needed, neither the run nor its first weights.

    Args:
      directory: the folder.
      shapes: (encoder, task, settings) -> shapes of the model, by which `head.safetensors` is read.

    Returns:
      Model, tokenizer, task and settings.

    Raises:
      CheckpointError: a file that is missing, damaged, or fits no other.
      ConfigError: settings that this version does not know.
    """
    task, config, step = _trained(directory)
    if (directory / HEAD).exists():
        encoder, tokenizer = load(directory, check=config.check)
        model = _with_rest(encoder, shapes(encoder, task, config), directory / HEAD)
    else:
        encoder, head, tokenizer = load_with_head(directory, check=config.check)
        model = TaskModel(encoder=encoder, head=head)
    if tokenizer is None:
        raise CheckpointError(f"{directory} has no tokenizer.json: the export is not whole.")
    return Exported(config, task, tokenizer, model, step)


def _trained(directory: Path) -> tuple[Task, FinetuneConfig, int]:
    try:
        trained = loads((directory / TRAINED).read_text(encoding="utf-8"))
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in trained["task"].items()}
        return Task(**values), FinetuneConfig.from_dict(trained["config"]), int(trained["step"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise CheckpointError(f"{directory / TRAINED} must hold task, config and step: {error!r:.200}.") from error


def drawn_fusion(settings: FinetuneConfig, config: EncoderConfig, key: PRNGKeyArray) -> Fusion | None:
    """A run's fusion before training.

    Args:
      settings: of the run.
      config: its encoder's.
      key: as of `init_fusion`.

    Returns:
      The fusion; None where layers are not fused.

    Raises:
      ConfigError: a layer that the encoder does not have.
    """
    if settings.fusion == "none":
        return None
    chosen = fused_blocks(settings.fusion_layers)
    if chosen is not None and chosen[-1] >= config.layers:
        raise ConfigError(f"fusion_layers must end at layer {config.layers} or before; got {settings.fusion_layers!r}.")
    return init_fusion(settings.fusion, config, key, layers=chosen)


def trained_fusion(directory: str | Path, config: EncoderConfig | None = None) -> Fusion | None:
    """How an exported model fuses its layers, for `diagnose` or `bert.fusion.fuse`.

    Args:
      directory: of the model, as the `best` of a run; what else `load` takes for a model has no fusion.
      config: its encoder's; read from the directory unless given.

    Returns:
      The fusion with its trained parameters; None where layers are not fused, or the folder is no such export.

    Raises:
      CheckpointError, ConfigError: as `load_export`.
    """
    folder = None if str(directory) == "tiny" else local_folder(directory)  # as `load` takes the name
    if folder is None or not is_export(folder) or not (folder / HEAD).exists():
        return None
    config = config_from_file(folder / "config.json") if config is None else config
    _, settings, _ = _trained(folder)
    shapes = jax.eval_shape(lambda: drawn_fusion(settings, config, jax.random.key(0)))
    if shapes is None:
        return None
    found = _arrays(folder / HEAD)
    prefix = "fusion."
    expected = {prefix + name: leaf.shape for name, leaf in named_leaves(shapes).items()}
    if expected != {name: array.shape for name, array in found.items() if name.startswith(prefix)}:
        raise CheckpointError(
            f"{folder / HEAD} does not hold the arrays of the fusion {settings.fusion!r}: {expected}."
        )
    return map_named(lambda name, _: jnp.asarray(found[prefix + name]), shapes)


def _with_rest(encoder: Encoder, shapes: TaskModel, path: Path) -> TaskModel:
    """The encoder with the head and the fusion of a file, whose arrays must have the shapes."""
    found = _arrays(path)
    expected = {name: tuple(leaf.shape) for name, leaf in _without_encoder(shapes).items()}
    if expected != {name: array.shape for name, array in found.items()}:
        raise CheckpointError(f"{path} must hold {expected}; got { {k: v.shape for k, v in found.items()} }.")
    unfilled = dataclasses.replace(shapes, encoder=encoder)
    return map_named(lambda name, leaf: jnp.asarray(found[name]) if name in found else leaf, unfilled)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _without_encoder(model: TaskModel) -> dict[str, Any]:
    """The arrays of head and fusion by their paths in the model."""
    return {name: leaf for name, leaf in named_leaves(model).items() if not name.startswith("encoder.")}
