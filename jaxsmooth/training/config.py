"""One frozen dataclass that says everything about a fine-tuning run; saved with the run, checked before any work."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any, Literal

from ..assets.tables import Missing
from ..errors import ConfigError, did_you_mean, names_checked
from ..files import atomic_write
from ..json_reading import loads
from ..paths import folder_name, refuse_address

Remat = Literal["auto", "none", "full", "dots"]
Fusion = Literal["none", "weights", "concat", "max", "gate"]
Prng = Literal["auto", "threefry2x32", "rbg"]
Attention = Literal["auto", "explicit", "fused"]


@names_checked(ConfigError, "setting")
@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune an encoder on a task: log, checkpoint, resume, keep the best.

    Running the same command again resumes from the newest whole checkpoint. With one process and a given mesh the
    resumed run ends in the same bits as an uninterrupted one.
    """

    task: str = "movie-reviews"
    """A task by name (docs/tasks.md), or a table of your own (.csv, .tsv, .jsonl, .json, .parquet), or a folder of
    them."""
    model: str = "minilm-l6"
    """An asset (`jaxsmooth assets list`), a folder in Hugging Face's format, a hub id such as bert-base-uncased, or
    "tiny": a small model with random weights that needs no download."""
    out: Path = Path("runs/{model}-{task}")
    """Folder of the run: config.json, metrics.jsonl, TensorBoard's events/, checkpoints/, and best/, a model in Hugging
    Face's format."""
    data_dir: str = ""
    """Folder of the official files, for a task that is no asset."""
    columns: str = ""
    """Of a table of your own: which column is which, as text=review,label=stars; found by their names if left out."""
    missing: Missing = "refuse"
    """Of a table of your own: refuse or skip rows with a missing cell, or take NA and the like for words (literal)."""
    epochs: float = 3.0
    """Passes over the training split."""
    steps: int = 0
    """Optimiser steps, in place of --epochs; 0 works them out from the epochs."""
    batch_size: int = 32
    """Records in a step, over all processes."""
    accumulate: int = 1
    """Cut each step's batch into so many parts, computed one after the other, to save memory."""
    max_length: int = 128
    """The most tokens of a sentence; longer ones are cut."""
    learning_rate: float = 2e-5
    """The highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up."""
    warmup: float = 0.1
    """Over how many steps the rate rises from 0: below 1 a share of all steps, rounded up; from 1 on their number."""
    weight_decay: float = 0.01
    """Weight decay as in AdamW, of everything but biases and norms."""
    beta1: float = 0.9
    """Adam's decay of the mean."""
    beta2: float = 0.999
    """Adam's decay of the mean square."""
    adam_eps: float = 1e-8
    """Adam's epsilon, outside the root."""
    clip: float = 1.0
    """Clip the gradient to this global norm; 0 for no clipping."""
    layer_decay: float = 1.0
    """Each layer's learning rate, relative to that of the layer above it."""
    hidden_dropout: float = 0.1
    """Dropout rate on the embedding and on the sub-layers' outputs."""
    attention_dropout: float = 0.1
    """Dropout rate on the attention probabilities."""
    head_dropout: float = 0.1
    """Dropout rate before the output layer."""
    fusion: Fusion = "none"
    """How the outputs of layers are fused before the head."""
    fusion_layers: str = ""
    """As 1,6: the layers, counted from 1, whose outputs are fused; all if left out."""
    remedy: str = ""
    """A remedy against over-smoothing, as attnscale:0.3, or several joined by "+"; `jaxsmooth remedies` lists them."""
    share_attention: str = ""
    """As 7-12: layers 8 to 12, counted from 1, use the attention of layer 7 and compute none themselves."""
    exit_layer: int = 0
    """Take the output of this layer, counted from 1, and cut off those above it; 0 for the last."""
    freeze: bool = False
    """Train head, pooler and fusion only: a probe of what the encoder's output holds."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the computation; parameters and optimiser stay in float32."""
    matmul_precision: Literal["highest", "high", "default"] = "highest"
    """How exactly float32 matrices are multiplied: all digits (highest), bfloat16 in three passes or TF32 (high), or as
    the device does by default."""
    attention: Attention = "auto"
    """Whether layers compute their attention probabilities (explicit), or leave attention to a kernel of the
    accelerator that never holds them (fused): in bfloat16, with --attention-dropout 0 and no remedy of attention. auto
    is fused wherever that is possible, and explicit on a CPU."""
    remat: Remat = "auto"
    """What the backward pass computes again to save memory: nothing (none), whole blocks (full), or all but the matrix
    products (dots). auto takes the least that is estimated to fit into the device's memory, and says so."""
    ema: float = 0.0
    """Decay of a running average of the parameters, which is then what is evaluated and exported; 0 for none."""
    seed: int = 0
    """Seed of the head's initial values, the order of the data, and dropout."""
    prng: Prng = "auto"
    """Generator of the dropout masks. auto is threefry2x32 on a CPU, which draws the same on every platform, and rbg on
    an accelerator, where it compiles several times faster; a run keeps the one that it was begun with."""
    compile_effort: float = 0.0
    """How hard the compiler tries to make the step fast, from -1 to 1: at -1 the TPU compilers are several times
    quicker, for trying out; the program needs somewhat more memory and may be slower."""
    mesh: str = ""
    """Axes of the device mesh, as data=2,fsdp=2,tensor=2; all devices on data if left out."""
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0 for once an epoch."""
    patience: int = 0
    """Stop after so many evaluations without a better score; 0 never stops early."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints to keep; the best is kept as well."""
    log_every: int = 10
    """Steps between records of loss, learning rate and tokens per second."""
    logger: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where the records go besides metrics.jsonl. wandb needs `pip install 'jaxsmooth[wandb]'`."""
    probe: int = 16
    """On how many validation sentences over-smoothing is measured at each evaluation; 0 for none."""
    limit: int = 0
    """Use a fixed sample of N examples of each split; 0 for all of them."""
    check: bool = True
    """First run the model that was read on a short probe: are its numbers finite, its known answers right?"""

    def __post_init__(self) -> None:
        named = str(self.out).replace("{model}", folder_name(self.model)).replace("{task}", folder_name(self.task))
        object.__setattr__(self, "out", Path(named))
        for path in (self.out, self.data_dir, self.task):
            refuse_address(path, ConfigError)
        whole = {field.name for field in dataclasses.fields(self) if field.type is int}
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"{name} must be a finite number; got {value!r}.")
            if name in whole and not isinstance(value, int):
                raise ConfigError(f"{name} must be a whole number; got {value!r}.")
            if not least <= value <= most:
                raise ConfigError(f"{name} must lie in [{least:g}, {most:g}]; got {value!r}.")
        if self.epochs <= 0 and not self.steps:
            raise ConfigError(f"epochs must be above 0 unless steps is given; got {self.epochs}.")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate must divide batch_size; got batch_size={self.batch_size}, accumulate={self.accumulate}."
            )
        if self.attention == "fused" and self.attention_dropout:
            raise ConfigError(
                f"attention='fused' has no probabilities to drop; got attention_dropout={self.attention_dropout}. Set "
                "that to 0, or leave attention to 'auto', which is explicit then."
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is str and not isinstance(value, str | Path | None):
                raise ConfigError(f"{field.name} must be text; got {value!r:.80}.")
            choices = getattr(field.type, "__args__", ())
            if choices and getattr(self, field.name) not in choices:
                raise ConfigError(
                    f"{field.name} must be one of {', '.join(choices)}; got {getattr(self, field.name)!r}."
                )
        if self.share_attention and shared_blocks(self.share_attention) is None:
            raise ConfigError(f"share_attention must be two layers, as '7-12'; got {self.share_attention!r}.")
        if self.fusion_layers and (self.fusion == "none" or fused_blocks(self.fusion_layers) is None):
            got = f"{self.fusion_layers!r} with fusion={self.fusion!r}"
            raise ConfigError(f"fusion_layers must be layers in ascending order, as '1,6', of a fusion; got {got}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; `from_dict` inverts it."""
        return {**dataclasses.asdict(self), "out": str(self.out)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FinetuneConfig":
        """From what `to_dict` gave.

        Args:
          values: some or all settings by name; the others get their defaults.

        Raises:
          ConfigError: a setting that does not exist, or has a bad value.

        >>> FinetuneConfig.from_dict({"learning_rat": 1e-4})
        Traceback (most recent call last):
        ...
        jaxsmooth.errors.ConfigError: there is no setting 'learning_rat'. Did you mean 'learning_rate'?
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"there is no setting {name!r}.{did_you_mean(name, known)}")
        return cls(**{**values, "out": Path(values.get("out", cls.out))})

    def save(self, path: Path) -> None:
        """Write the settings as JSON.

        Args:
          path: the file; replaced at once where it exists.
        """
        atomic_write(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "FinetuneConfig":
        """Settings saved by `save`.

        Args:
          path: the file.

        Raises:
          ConfigError: no such file, no JSON object, or as `from_dict`.
        """
        refuse_address(path, ConfigError)
        try:
            values = loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read as a run's settings: {error}. Is this the folder of a run?"
            ) from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must hold one JSON object; got {type(values).__name__}.")
        return cls.from_dict(values)


def shared_blocks(text: str) -> tuple[int, int] | None:
    """Which blocks share attention, counted from 0, by the user's words; None for "" and for other words.

    >>> shared_blocks("7-12")
    (6, 11)
    """
    found = re.fullmatch(r"([1-9]\d{0,8})-([1-9]\d{0,8})", text or "")
    first, last = (int(part) - 1 for part in found.groups()) if found else (0, 0)
    return (first, last) if first < last else None


def fused_blocks(text: str) -> tuple[int, ...] | None:
    """Which blocks' outputs are fused, counted from 0, by the user's words; None (all) for "" and for other words.

    >>> fused_blocks("1,6")
    (0, 5)
    """
    if not re.fullmatch(r"[1-9]\d{0,8}(,[1-9]\d{0,8})*", text or ""):
        return None
    blocks = tuple(int(part) - 1 for part in text.split(","))
    return blocks if all(a < b for a, b in itertools.pairwise(blocks)) else None


@dataclasses.dataclass(frozen=True)
class AotConfig:
    """Compile the training step for an accelerator without having one; print what it needs and allows."""

    target: str = "tpu-v5e:2x2"
    """Chip and topology: tpu-v4:2x2x1, tpu-v5e:4x4, tpu-v5p:2x2x1, tpu-v6e:2x4, gpu-h100:4 and others."""
    slices: int = 1
    """How many TPU slices of that topology."""
    model_size: str = "bert-base"
    """bert-base, bert-large, modernbert-base, or a model as the other commands take it, of which only config.json is
    read."""
    mesh: str = ""
    """Axes of the device mesh, as data=2,fsdp=2; all devices on data if left out."""
    batch_size: int = 128
    """Records in a step, over all devices."""
    length: int = 128
    """Tokens of a sentence."""
    inference: bool = False
    """Compile the forward pass alone, of parameters in the given precision."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the computation; in training parameters and optimiser stay in float32."""
    remat: Remat = "auto"
    """What the backward pass computes again to save memory, as of finetune; auto takes the least that is estimated to
    fit, or else what the compiler finds to fit."""
    prng: Prng = "auto"
    """Generator of the dropout masks, as of finetune; auto is rbg."""
    attention: Attention = "auto"
    """Explicit, or by a kernel of the accelerator, as of finetune."""
    attention_dropout: float = 0.1
    """Dropout rate on the attention probabilities; above 0 they are computed explicitly."""
    accumulate: int = 1
    """Cut each step's batch into so many parts, computed one after the other."""
    compile_effort: float = 0.0
    """How hard the compiler tries to make the step fast, as of finetune."""
    out: Path | None = None
    """Also write the numbers to this JSON file."""


_COUNT = 10**9
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "accumulate", "keep", "log_every", "checkpoint_every"), (1, _COUNT)),
    **dict.fromkeys(("steps", "eval_every", "patience", "probe", "limit", "exit_layer"), (0, _COUNT)),
    **dict.fromkeys(("beta1", "beta2", "hidden_dropout", "attention_dropout", "head_dropout", "ema"), (0, 1 - 1e-7)),
    **dict.fromkeys(("clip", "weight_decay"), (0, math.inf)),
    "epochs": (0, 1e6),
    "max_length": (3, _COUNT),
    "learning_rate": (0, 10),
    "compile_effort": (-1, 1),
    "warmup": (0, _COUNT),
    "adam_eps": (0, 1),
    "layer_decay": (1e-3, 1),
    "seed": (0, 2**32 - 1),
}

MOST_STEPS = _COUNT

LENGTH = ("steps", "epochs")
"""Settings that may differ so that the run goes on for longer."""
RESUMABLE = (
    *("out", "eval_every", "patience", "checkpoint_every", "keep", "log_every", "logger", "check"),
    *("mesh", "remat", "attention", "compile_effort"),
)
"""Settings that may differ between a run and its resumption: they change no parameter's bits, or, the last four, only
by rounding."""
NO_PROGRAM = (
    *("out", "seed", "data_dir", "limit", "eval_every", "patience", "checkpoint_every", "keep", "log_every", "logger"),
    *("mesh", "check"),
)
"""Settings that no compiled program depends on, given the mesh: runs that differ in these alone share theirs."""
