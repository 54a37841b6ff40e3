"""`jaxsmooth diagnose`, `converge`, `verify`, `compare`: read model and texts, run the study, print, write."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import AssetError, DataError
from ..terminal import PlainConsole
from . import trained
from .commands import Compare, Converge, Diagnose, Study, Verify
from .jax_settings import keep_compiled_programs, traced_programs
from .settings import write_settings

if TYPE_CHECKING:
    from ..bert.params import Encoder
    from ..inputs.tokenizer import Tokenizer

TEXTS = "texts.parquet"
"""What `--each-text` writes."""

FATE_SENTENCES = 8
"""How many sentences `diagnose --fate` follows: each is a run of hundreds of passes."""


def run_study(command: Study) -> int:
    """`jaxsmooth diagnose|converge|verify|compare`. Returns 1 if any theorem is violated."""
    if not isinstance(command, Diagnose):
        return _run(command)
    from .. import report

    with report.illustrator() as meanwhile:
        return _run(command, meanwhile=meanwhile)


def _run(command: Study, **drawing: Any) -> int:
    """The same; `drawing` are further arguments of what writes the result."""
    options = _own_options(command)
    model, tokenizer, texts = _load(command)
    first: list[str] = []
    if isinstance(command, Diagnose) and command.fate != "none":
        first, texts = _first(texts, FATE_SENTENCES)
    if isinstance(command, Diagnose):
        options["fusion"] = _fusion(command, model)
    steps = _steps(command)
    found = steps.study(
        model,
        tokenizer,
        texts,
        **options,
        each_text=command.out / TEXTS if command.each_text else False,
        name=command.model,
        data=_data_name(command),
        tokens_per_batch=command.tokens_per_batch,
        progress=True,
        programs=traced_programs(),
    )
    if isinstance(command, Diagnose) and command.fate != "none":
        found = _with_fate(found, command, model, tokenizer, first)
    if isinstance(command, Compare) and command.finetune:
        found = trained.with_training(found, command)
    from .. import report

    console = PlainConsole()
    try:
        steps.show(found, console)  # first: drawing the figures takes seconds
    finally:  # also where nobody listens any more
        written = steps.write(found, command.out, **drawing)
        if command.each_text:
            each = (getattr(found, name, None) for name in ("each", "each_hypothesis"))
            files = [Path(one.file) for one in each if one is not None] or [command.out / TEXTS]
            written |= dict(zip(("texts", "asked of each"), files, strict=False))
        write_settings(command, command.out)
    console.print()
    report.print_paths(console, written)
    return int(isinstance(command, Verify) and found.violated)


def _fusion(command: Diagnose, model: "Encoder") -> Any:
    """What `diagnose` fuses: the model's own fusion, an untrained one by name, or nothing."""
    from ..training.export import trained_fusion

    if command.fusion == "own":
        return trained_fusion(command.model, model.config)
    return None if command.fusion == "none" else command.fusion


def _data_name(command: Study) -> str:
    """What a report calls the texts."""
    column = _text_column(command.columns)
    name = "standard input" if command.data == "-" else command.data
    name += "" if column == "text" else f" (column {column})"
    return name if command.sample is None else f"{name} (drawn at random, seed {command.sample})"


def _with_fate(found: Any, command: Diagnose, model: "Encoder", tokenizer: "Tokenizer", texts: Sequence[str]) -> Any:
    """The diagnosis with the fate of its first sentences."""
    from ..studies import converge

    fate = converge.converge(
        *(model, tokenizer, texts),
        map=command.fate,
        name=command.model,
        data=_data_name(command),
        tokens_per_batch=command.tokens_per_batch,
        progress=True,
        programs=traced_programs(),
    )
    return dataclasses.replace(found, fate=fate)


class _Steps(NamedTuple):
    """The study, which returns a result; what writes the result to a folder, and what prints it."""

    study: Callable[..., Any]
    write: Callable[..., Any]
    show: Callable[[Any, PlainConsole], None]


def _steps(command: Study) -> _Steps:
    from .. import report

    match command:
        case Diagnose():
            from ..studies import diagnose

            write = functools.partial(report.write_diagnosis, kept=traced_programs())
            return _Steps(diagnose.diagnose, write, report.print_diagnosis)
        case Converge():
            from ..studies import converge

            if command.map == "frozen":
                return _Steps(converge.converge, report.write_convergence, report.print_convergence)
            return _Steps(converge.converge, report.write_fates, report.print_fates)
        case Verify():
            from ..studies import verify

            return _Steps(verify.verify, report.write_verification, report.print_verification)
        case _:
            from ..studies import compare

            return _Steps(compare.compare, report.write_comparison, report.print_comparison)


def _own_options(command: Study) -> dict[str, Any]:
    """The arguments of one study that the others do not have."""
    match command:
        case Diagnose():
            return {"baseline": command.baseline, "metrics": _literature(command.metric)}
        case Converge():
            std = command.std[0] if len(command.std) == 1 else command.std or None
            shared = {"map": command.map, "layer": command.layer, "window": command.window, "steps": command.steps}
            return {**shared, "std": std, "basin": command.basin}
        case Compare():
            from ..mitigations.parse import parse_remedies

            remedies = parse_remedies(command.remedies)  # a wrong name costs no download and no work
            if command.finetune:
                trained.check(command, remedies)
            return {"remedies": remedies}
        case Verify():
            return {"theorems": command.theorem, "hypotheses": command.hypothesis}
        case _:
            return {}


def _literature(names: tuple[str, ...]) -> dict[str, Any]:
    """The measures of these names."""
    if not names:
        return {}
    from ..studies.requested.literature_metrics import literature_metrics

    return dict(literature_metrics(*names))


class _Texts:
    """Sentences of a known number, read once."""

    def __init__(self, texts: Iterator[str], count: int) -> None:
        self._texts, self._count = texts, count

    def __iter__(self) -> Iterator[str]:
        return self._texts

    def __len__(self) -> int:
        return self._count


def _first(texts: Iterable[str], count: int) -> tuple[list[str], Iterable[str]]:
    """The first sentences, and all of them; standard input can be read only once."""
    rest = iter(texts)
    first = list(itertools.islice(rest, count))
    whole = itertools.chain(first, rest)
    return first, _Texts(whole, len(texts)) if isinstance(texts, Sized) else whole


def _load(command: Study) -> tuple["Encoder", "Tokenizer", Iterable[str]]:
    """Model, tokenizer and text that a command names, in its precision."""
    # Heavy imports wait until a command needs them: help and `assets list` answer at once.
    import jax

    jax.config.update("jax_enable_x64", command.precision == "float64")
    keep_compiled_programs(jax)
    from .. import report
    from ..assets import count_texts, sample_texts, stream_texts
    from ..checkpoints import encoder

    # Folder and text first: a wrong name costs no download and no work.
    report.check_writable(command.out)
    column = _text_column(command.columns)
    texts: Iterable[str]
    if command.sample is None:
        texts = stream_texts(command.data, command.limit, column=column)
        count = count_texts(command.data, command.limit, column=column)
        texts = texts if count is None else _Texts(texts, count)
    else:
        texts = sample_texts(command.data, command.limit, command.sample, column=column)
    model, tokenizer = encoder.load(command.model, dtype=command.precision, check=command.check)
    if tokenizer is None:
        raise AssetError(f"{command.model} has no tokenizer.json or vocab.txt; a tokenizer is needed to read text.")
    return model, tokenizer, texts


def _text_column(columns: str) -> str:
    """The column of a table that a study reads."""
    from ..assets import parse_columns

    if columns and "=" not in columns:
        return columns
    named = parse_columns(columns)
    if named.keys() - {"text"}:
        raise DataError(f"only texts are read here: --columns must be text=NAME; got {columns!r}.")
    return named.get("text", "text")
