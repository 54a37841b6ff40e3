"""What each command takes: one frozen dataclass a command, read into flags by tyro."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..assets.tables import Missing
from ..training.config import AotConfig, FinetuneConfig


@dataclasses.dataclass(frozen=True)
class Study:
    """What the four studies of a model on text have in common."""

    model: Annotated[str, tyro.conf.Positional]
    """Asset name, directory in Hugging Face's format, hub id, or "tiny" (random weights, no download)."""
    data: str = "movie-reviews"
    """Name of a text asset, "tiny", a utf-8 file with one sentence per line, or a table (csv, tsv, json, parquet)."""
    columns: str = ""
    """Of a table: which column holds the texts, as "text=review"; the default is the one named text."""
    limit: int | None = 32
    """Read at most this many sentences."""
    sample: int | None = None
    """Draw the --limit sentences at random from all of them, with this seed; else the first ones are read."""
    out: Path = Path("reports")
    """Folder for what is written."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the model and of the mathematics."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included; changes time and memory, not the numbers."""
    check: bool = True
    """Run the model that was read on a short probe first: finite numbers, known answers."""


@dataclasses.dataclass(frozen=True)
class Diagnose(Study):
    """Run a model over text; write a report that says whether, where and why it over-smooths."""

    limit: int | None = None
    """Read at most this many sentences."""
    out: Path = Path("reports/diagnose")
    """Folder for report.html, report.json and figures/."""
    fusion: Literal["own", "none", "weights", "concat", "max", "gate"] = "own"
    """Measure layers fused as one more hidden state: as a model that `finetune` wrote does by itself (own), or all of
    them by an untrained fusion."""
    each_text: bool = False
    """Write texts.csv besides: rates, contraction and similarity of each text."""
    fate: Literal["none", "attention", "attention-values", "layer", "stack"] = "none"
    """Apply this map of the model again and again to the first eight sentences, as `converge --map` does; a section of
    the page says where their tokens go."""


@dataclasses.dataclass(frozen=True)
class Converge(Study):
    """Apply attention, a layer or all of them again and again; say where the tokens go, and what theory says of it."""

    out: Path = Path("reports/converge")
    """Folder for the numbers (converge.json, of a real map fate.json) and the figures, as .png, .svg and .pdf."""
    map: Literal["frozen", "attention", "attention-values", "layer", "stack"] = "frozen"
    """frozen: every head's matrix as it is, under masks, and normalised as in a graph convolution. The others are the
    model's own maps, everything in them recomputed each time: mean attention acting on the tokens, the attention
    sub-layer alone, a whole layer, all layers in turn."""
    layer: int | None = None
    """Of a real map: which layer, from 1; all of them, one after the other, if left out."""
    window: int = 4
    """Of the frozen map: tokens in the causal sliding window, the query included."""
    steps: int | None = None
    """The most applications: 256 of a frozen matrix, 200 of a real map if left out."""
    std: tuple[float, ...] = ()
    """Of layer and stack: impose this std on both LayerNorms of every block; several numbers for a sweep."""
    basin: int = 0
    """Of a real map: find how near to consensus a sentence must start to reach it, by so many halvings."""


@dataclasses.dataclass(frozen=True)
class Verify(Study):
    """Decide what theorems assume of the model, and check every theorem; status 1 if one is violated."""

    out: Path = Path("reports/verify")
    """Folder for verify.json and hypotheses.json."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the model; the mathematics is float64 either way."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included; changes time and memory, not the verdicts."""
    theorem: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Check only this one, by its name in docs/theorems.md; may be given several times."""
    hypothesis: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Decide only this hypothesis, by its name in docs/hypotheses.md; may be given several times."""


@dataclasses.dataclass(frozen=True)
class Compare(Study):
    """Apply published remedies of over-smoothing to a model, without training, and compare it layer by layer."""

    limit: int | None = 64
    """Read at most this many sentences."""
    out: Path = Path("reports/compare")
    """Folder for compare.json and compare.png, .svg and .pdf."""
    tokens_per_batch: int = 512
    """Size of a batch, padding included; changes time and memory, not the numbers (but attention-dropout's masks)."""
    remedies: Annotated[str, tyro.conf.arg(name="with")] = "contranorm,attnscale,featscale,neutreno,gfsa,centred"
    """Remedies between commas; parameters after ":", several joined by "+": contranorm,attnscale:0.3+neutreno."""


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Fine-tune an encoder on a task: log, checkpoint, resume, export the best. The same command resumes."""

    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    dry_run: bool = False
    """Print shapes, parameters, memory and steps, and stop."""
    coordinator: str = ""
    """With several processes: HOST:PORT of process 0, or "auto" on TPU pods and under SLURM."""
    processes: int = 1
    """How many processes there are, where --coordinator is an address."""
    process: int = 0
    """Which of them this is."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score the best checkpoint of a run on a split; print JSON."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its best/, wherever that was moved to."""
    split: Literal["train", "validation", "test"] = "test"
    """Which split."""
    step: int | None = None
    """Another checkpoint than the best."""
    limit: int | None = None
    """Score a fixed sample of so many examples, 0 for all; the run's own limit if left out."""
    each_token: bool = False
    """Of a masked LM: mask every token in turn, which gives the pseudo-perplexity, one forward pass per token."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Apply the best checkpoint of a run; write one JSON line per record."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run, or its best/, wherever that was moved to."""
    data: str = "test"
    """A split, a table of the task's texts, or for tasks of one sentence a text asset or a utf-8 file, one per line."""
    columns: str = ""
    """Of a table: which column is which, as "text=review"; the run's own if left out."""
    missing: Missing | None = None
    """Of a table: refuse or skip rows with a missing cell, or take NA, ... for words; the run's own if left out."""
    out: Path = Path("reports/predictions.jsonl")
    """The file to write."""


@dataclasses.dataclass(frozen=True)
class ListAssets:
    """Show every pinned asset and whether it is in the cache."""


@dataclasses.dataclass(frozen=True)
class FetchAsset:
    """Download an asset into the cache and verify it."""

    name: Annotated[str, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class AssetPath:
    """Print where a fetched asset lies."""

    name: Annotated[str, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class ClearAssets:
    """Remove one asset, or with --all every one, from the cache."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    all: bool = False
    """Remove every asset."""


@dataclasses.dataclass(frozen=True)
class VerifyAssets:
    """Read every file of one cached asset, or of all, and compare its hash with what was fetched."""

    name: Annotated[str | None, tyro.conf.Positional] = None


Assets = (
    Annotated[ListAssets, tyro.conf.subcommand("list")]
    | Annotated[FetchAsset, tyro.conf.subcommand("fetch")]
    | Annotated[AssetPath, tyro.conf.subcommand("path")]
    | Annotated[ClearAssets, tyro.conf.subcommand("clear")]
    | Annotated[VerifyAssets, tyro.conf.subcommand("verify")]
)


@dataclasses.dataclass(frozen=True)
class AssetCommand:
    """The pinned weights and texts: list, fetch, path, clear, verify."""

    command: tyro.conf.OmitSubcommandPrefixes[Assets]


Command = (
    Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Converge, tyro.conf.subcommand("converge")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[AotConfig, tyro.conf.subcommand("aot")]
    | Annotated[AssetCommand, tyro.conf.subcommand("assets")]
)
