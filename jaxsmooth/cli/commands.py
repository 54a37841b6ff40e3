"""What each command takes: one frozen dataclass a command. `COMMANDS` names them, in groups of flags, with examples."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from ..assets.tables import Missing
from ..training.config import AotConfig, FinetuneConfig


@dataclasses.dataclass(frozen=True)
class Study:
    """What the four studies of a model on text have in common."""

    model: str
    """An asset (`jaxsmooth assets list`), a folder in Hugging Face's format, a hub id such as bert-base-uncased, or
    "tiny": a small model with random weights that needs no download."""
    data: str = "movie-reviews"
    """A text asset, "tiny" (a few shipped sentences), a UTF-8 file with one sentence per line, a table (.csv, .tsv,
    .jsonl, .json, .parquet), - for standard input, or one sentence in quotes."""
    columns: Annotated[str, tyro.conf.arg(aliases=("--text-column",), metavar="NAME")] = ""
    """Of a table: the column that holds the texts, as review or text=review. Without it, the column named text."""
    limit: int | None = 32
    """Read at most N sentences; None for all of them."""
    sample: int | None = None
    """Draw the --limit sentences at random from all of them, with seed N, instead of taking the first ones."""
    out: Path = Path("reports/{model}")
    """Folder for what is written."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the model and of the mathematics."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included. It changes time and memory, not the numbers."""
    check: bool = True
    """First run the model that was read on a short probe: are its numbers finite, its known answers right?"""
    each_text: bool = False
    """Also write texts.parquet: every number of each text, one a row, however many texts there are."""


@dataclasses.dataclass(frozen=True)
class Diagnose(Study):
    """Say whether, where and why a model over-smooths, in a report of one page."""

    limit: int | None = None
    """Read at most N sentences; all of them if left out."""
    out: Path = Path("reports/diagnose-{model}")
    """Folder for report.html, report.json and figures/."""
    fusion: Literal["own", "none", "weights", "concat", "max", "gate"] = "own"
    """Measure a fusion of layers as one more row: the one that `finetune` trained with the model, if it did (own), or
    an untrained one of this kind, of all layers."""
    each_text: bool = False
    """Also write texts.parquet: every number of each text, one a row, however many texts there are; and texts.csv: the
    rates, contraction and similarity of each text, a line a text."""
    fate: Literal["none", "attention", "attention-values", "layer", "stack"] = "none"
    """Apply this map of the model again and again to the first eight sentences, as `converge --map` does, and say on
    the page where their tokens go."""
    baseline: bool = True
    """Also measure the same architecture with random weights, on the texts of the first batch, to compare with."""
    metric: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Also measure this, by its name in docs/extending.md: temperature, turn_block, ... May be given several times."""


@dataclasses.dataclass(frozen=True)
class Converge(Study):
    """Apply attention, one layer or all layers again and again: where do the tokens go, and does theory say so?"""

    out: Path = Path("reports/converge-{model}")
    """Folder for converge.json (fate.json of a map other than frozen) and for the figures (.png, .svg, .pdf)."""
    map: Literal["frozen", "attention", "attention-values", "layer", "stack"] = "frozen"
    """What is applied. frozen: every head's attention matrix as it is for the text, in full, under masks, and
    normalised as in a graph convolution. The others compute everything anew each time: the heads' mean attention on
    the tokens (attention), the attention sub-layer alone (attention-values), a whole layer, or all layers in turn
    (stack)."""
    layer: int | None = None
    """Which layer, counted from 1; each of them if left out. Not for frozen."""
    window: int = 4
    """For frozen: tokens in the causal sliding window, the query included."""
    steps: int | None = None
    """Apply it at most N times; 256 for frozen and 200 for the others if left out."""
    std: tuple[float, ...] = ()
    """For layer and stack: the standard deviation imposed on both LayerNorms of every block; several numbers are
    tried one after the other."""
    basin: int = 0
    """Not for frozen: find how near to equal a sentence's tokens must start to become equal, by N halvings."""


@dataclasses.dataclass(frozen=True)
class Verify(Study):
    """Does the theory hold here, and which hypotheses fail? Checks every theorem; status 1 if one is violated."""

    out: Path = Path("reports/verify-{model}")
    """Folder for verify.html, verify.json, hypotheses.json and the figure (.png, .svg, .pdf)."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the model; the mathematics is float64 either way."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included. It changes time and memory, not the verdicts."""
    theorem: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Check only this theorem, by its name in docs/theorems.md. May be given several times."""
    hypothesis: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Decide only this hypothesis, by its name in docs/hypotheses.md. May be given several times."""
    each_text: bool = False
    """Also write texts.parquet: both sides and the verdict of every theorem for each text, however many there are; and
    texts-hypotheses.parquet: the number that decides and the verdict of every hypothesis."""


@dataclasses.dataclass(frozen=True)
class Compare(Study):
    """Which remedy keeps tokens apart? Applies published ones to a model, without training, and ranks them."""

    limit: int | None = 64
    """Read at most N sentences; None for all of them."""
    out: Path = Path("reports/compare-{model}")
    """Folder for compare.json and the figure (.png, .svg, .pdf)."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included. It changes time and memory, not the numbers (but it does change the masks of
    attention-dropout)."""
    remedies: Annotated[str, tyro.conf.arg(name="with")] = "contranorm,attnscale,featscale,neutreno,gfsa,centred"
    """The remedies, between commas; parameters after ":", remedies to be used together joined by "+". `jaxsmooth
    remedies` lists them."""
    finetune: str = ""
    """Also train the model on this task (docs/tasks.md, or a table of your own) without and with each remedy, and set
    its score beside: one training for each remedy and seed."""
    seeds: int = 3
    """With --finetune: train each with so many seeds."""
    epochs: float = 1.0
    """With --finetune: passes over the training split."""
    steps: int = 0
    """With --finetune: optimiser steps, in place of --epochs."""
    learning_rate: float = 2e-5
    """With --finetune: the highest learning rate."""


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Fine-tune a model on a task: log, save checkpoints, keep the best. The same command goes on where it stopped."""

    config: FinetuneConfig
    dry_run: bool = False
    """Print shapes, parameters, memory and steps, and stop there."""
    coordinator: str = ""
    """With several processes: HOST:PORT of process 0, or "auto" on TPU pods and under SLURM."""
    processes: int = 1
    """How many processes there are, where --coordinator is an address."""
    process: int = 0
    """Which of them this one is, from 0."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score the best checkpoint of a run on a split, and print the scores as JSON."""

    run: Path
    """Folder of a run, or its best/, wherever that was moved to."""
    split: Literal["train", "validation", "test"] = "test"
    """Which part of the data."""
    step: int | None = None
    """Score the checkpoint of step N instead of the best one."""
    limit: int | None = None
    """Score a fixed sample of N examples, 0 for all of them; the run's own limit if left out."""
    each_token: bool = False
    """Of a masked LM: mask every token in turn, which gives the pseudo-perplexity, at one forward pass per token."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Apply the best checkpoint of a run to new text, and write one JSON line per record."""

    run: Path
    """Folder of a run, or its best/, wherever that was moved to."""
    data: str = "test"
    """A split, or a table with the task's texts. For tasks of one sentence also what the other commands take: a text
    asset, a UTF-8 file, - for standard input, or one sentence in quotes."""
    columns: str = ""
    """Of a table: which column is which, as text=review; as in the run if left out."""
    missing: Missing | None = None
    """Of a table: refuse or skip rows with a missing cell, or take NA and the like for words (literal); as in the run
    if left out."""
    out: Path = Path("reports/predictions-{run}.jsonl")
    """The file to write."""


@dataclasses.dataclass(frozen=True)
class Remedies:
    """List the remedies that `compare --with` and `finetune --remedy` know: parameters, defaults, sources."""


@dataclasses.dataclass(frozen=True)
class Glossary:
    """Say what the words and columns of the output mean: unit, range, source."""

    name: str | None = None
    """The word, as it stands in a table or on a page; without it, all words."""


@dataclasses.dataclass(frozen=True)
class ListAssets:
    """List every asset: kind, size, licence, and whether it is in the cache."""


@dataclasses.dataclass(frozen=True)
class FetchAsset:
    """Download an asset into the cache and verify it."""

    name: str
    """The asset's name in `jaxsmooth assets list`."""


@dataclasses.dataclass(frozen=True)
class AssetPath:
    """Print the folder of an asset that was fetched."""

    name: str
    """The asset's name in `jaxsmooth assets list`."""


@dataclasses.dataclass(frozen=True)
class ClearAssets:
    """Remove one asset from the cache, or all of them with --all."""

    name: str | None = None
    """The asset's name in `jaxsmooth assets list`."""
    all: bool = False
    """Remove every asset."""


@dataclasses.dataclass(frozen=True)
class VerifyAssets:
    """Read every file of a cached asset, or of all of them, and compare its hash with what was fetched."""

    name: str | None = None
    """The asset's name in `jaxsmooth assets list`; every asset in the cache if left out."""


class Entry(NamedTuple):
    """A command as the command line shows it.

    Attributes:
      command: its dataclass.
      examples: command lines, without the program's name.
      groups: title of a group of flags -> the flags; those in none are under "options".
    """

    command: type
    examples: tuple[str, ...] = ()
    groups: dict[str, str] = {}  # noqa: RUF012  a NamedTuple's default is never changed


_TEXT = {"text": "data columns limit sample"}
_STUDY = {"computation": "precision tokens_per_batch check", "output": "out each_text"}
_FINETUNE = {
    "data": "task data_dir columns missing max_length limit",
    "output": "out logger log_every probe",
    "architecture": "fusion fusion_layers remedy share_attention exit_layer freeze check",
    "optimiser": "epochs steps batch_size accumulate learning_rate schedule warmup weight_decay beta1 beta2 adam_eps "
    "clip layer_decay ema seed",
    "dropout": "hidden_dropout attention_dropout head_dropout",
    "evaluation": "eval_every patience",
    "checkpoint": "checkpoint_every keep",
    "computation": "precision matmul_precision attention remat prng compile_effort",
    "device": "mesh coordinator processes process",
}

COMMANDS: dict[str, Entry | dict[str, Entry]] = {
    "diagnose": Entry(
        Diagnose,
        (
            "diagnose minilm-l6 --limit 256",
            "diagnose bert-base-uncased --data reviews.csv --columns text=review",
            "diagnose minilm-l6 --limit 64 --metric temperature --metric turn_block",
            'diagnose tiny --data "A film worth seeing."',
        ),
        {**_TEXT, "measurement": "fusion fate baseline metric", **_STUDY},
    ),
    "converge": Entry(
        Converge,
        (
            "converge minilm-l6 --limit 8",
            "converge minilm-l6 --map layer --layer 3",
            "converge tiny --map stack --std 1 2",
        ),
        {**_TEXT, "iteration": "map layer window steps std basin", **_STUDY},
    ),
    "verify": Entry(
        Verify,
        ("verify minilm-l6 --limit 8", "verify tiny --data tiny --theorem dobrushin1956_diameter"),
        {**_TEXT, "choice": "theorem hypothesis", **_STUDY},
    ),
    "compare": Entry(
        Compare,
        (
            "compare minilm-l6",
            "compare minilm-l6 --with contranorm,attnscale:0.3,contranorm:s=0.2+neutreno",
            "compare minilm-l6 --with contranorm --finetune movie-reviews --seeds 5",
        ),
        {**_TEXT, "remedy": "remedies", "training": "finetune seeds epochs steps learning_rate", **_STUDY},
    ),
    "remedies": Entry(Remedies),
    "glossary": Entry(Glossary, ("glossary", "glossary anisotropy", "glossary d_M")),
    "finetune": Entry(
        Finetune,
        (
            "finetune minilm-l6 --task movie-reviews --epochs 2",
            "finetune minilm-l6 --task reviews.csv --columns text=review,label=stars --fusion gate",
            "finetune --config runs/minilm-l6-movie-reviews/config.json --epochs 4",
        ),
        _FINETUNE,
    ),
    "evaluate": Entry(
        Evaluate,
        ("evaluate runs/minilm-l6-movie-reviews --split validation",),
        {"choice": "split step limit each_token"},
    ),
    "predict": Entry(
        Predict,
        (
            'predict runs/minilm-l6-movie-reviews --data "A film worth seeing."',
            "predict runs/minilm-l6-movie-reviews --data new.csv --columns text=review --out new.jsonl",
        ),
        {"text": "data columns missing", "output": "out"},
    ),
    "aot": Entry(
        AotConfig,
        ("aot bert-base --target tpu-v5e:2x2", "aot minilm-l6 --target gpu-h100:4 --batch-size 512"),
        {
            "device": "target slices mesh",
            "step": "batch_size length inference accumulate precision attention attention_dropout remat prng",
            "compiler": "compile_effort",
            "output": "out",
        },
    ),
    "assets": {
        "list": Entry(ListAssets),
        "fetch": Entry(FetchAsset, ("assets fetch minilm-l6",)),
        "path": Entry(AssetPath, ("assets path minilm-l6",)),
        "clear": Entry(ClearAssets, ("assets clear minilm-l6", "assets clear --all")),
        "verify": Entry(VerifyAssets, ("assets verify",)),
    },
}
