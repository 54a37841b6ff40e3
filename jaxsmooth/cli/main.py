"""The command line: parse, call, print."""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from ..errors import AssetError, ConfigError, DataError, JaxsmoothError, PreemptedError, did_you_mean
from ..files import spelled_out
from ..paths import folder_name
from ..terminal import PlainConsole, say
from ..training.config import AotConfig
from . import trained
from .commands import (
    AssetPath,
    ClearAssets,
    Compare,
    Converge,
    Diagnose,
    Evaluate,
    FetchAsset,
    Finetune,
    Glossary,
    ListAssets,
    Predict,
    Remedies,
    Study,
    Verify,
    VerifyAssets,
)
from .parsing import parse
from .settings import write_settings

if TYPE_CHECKING:
    from ..bert.params import Encoder
    from ..inputs.tokenizer import Tokenizer

TEXTS = "texts.parquet"
"""What `--each-text` writes."""

FATE_SENTENCES = 8
"""How many sentences `diagnose --fate` follows: each is a run of hundreds of passes."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `jaxsmooth`. Returns the exit status.

    0; 1 for a refusal or a violation; 130 when interrupted; 141 when nobody reads what is printed; 143 when a training
    was ended by SIGTERM, after a checkpoint (128 + the signal's number, as a shell reports it).
    """
    try:
        # Inside: a configuration that contradicts itself is refused while it is parsed.
        status = _run(_at_home(parse(arguments)))
        sys.stdout.flush()
        return status
    except PreemptedError as error:
        say(f"jaxsmooth: {error}", stderr=True)
        return 143
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (JaxsmoothError, OSError) as error:
        say(f"jaxsmooth: {error}", stderr=True)
        return 1
    except KeyboardInterrupt:
        say("jaxsmooth: interrupted; no file was left half-written.", stderr=True)
        return 130


def _run(command: Any) -> int:
    match command:
        case Study():
            return run_study(command)
        case Finetune():
            run_finetune(command)
        case Evaluate():
            run_evaluate(command)
        case Predict():
            run_predict(command)
        case AotConfig():
            run_aot(command)
        case Remedies():
            run_remedies()
        case Glossary():
            run_glossary(command)
        case _:
            run_assets(command)
    return 0


def _at_home(command: Any) -> Any:
    """The command with paths filled in: "~", which a shell leaves as it is in `--out=~/run`, and {model} or {run}."""
    values = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    paths = {name: Path(spelled_out(value)) for name, value in values.items() if isinstance(value, Path)}
    if "out" in paths:
        for word in {"model", "run"} & values.keys():
            paths["out"] = Path(str(paths["out"]).replace(f"{{{word}}}", folder_name(values[word])))
    return dataclasses.replace(command, **paths)


def run_study(command: Study) -> int:
    """`jaxsmooth diagnose|converge|verify|compare`. Returns 1 if any theorem is violated."""
    options = _own_options(command)
    model, tokenizer, texts = _load(command)
    first: list[str] = []
    if isinstance(command, Diagnose) and command.fate != "none":
        first, texts = _first(texts, FATE_SENTENCES)
    if isinstance(command, Diagnose):
        options |= {"fusion": _fusion(command, model), "programs": _traced_programs()}
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
        written = steps.write(found, command.out)
        if command.each_text:
            written = {**written, "texts": command.out / TEXTS}
        write_settings(command, command.out)
    console.print()
    report.print_paths(console, written)
    return int(isinstance(command, Verify) and found.violated)


def _fusion(command: Diagnose, model: "Encoder") -> Any:
    """What `diagnose` fuses: the model's own fusion, an untrained one by name, or nothing."""
    from ..training.export import trained_fusion

    if command.fusion == "own":
        return trained_fusion(Path(command.model), model.config)
    return None if command.fusion == "none" else command.fusion


def _data_name(command: Study) -> str:
    """What a report calls the texts."""
    name = "standard input" if command.data == "-" else command.data
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
    )
    return dataclasses.replace(found, fate=fate)


class _Steps(NamedTuple):
    """The study, which returns a result; what writes the result to a folder, and what prints it."""

    study: Callable[..., Any]
    write: Callable[[Any, Path], Any]
    show: Callable[[Any, PlainConsole], None]


def _steps(command: Study) -> _Steps:
    from .. import report

    match command:
        case Diagnose():
            from ..studies import diagnose

            return _Steps(diagnose.diagnose, report.write_diagnosis, report.print_diagnosis)
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
            return {"baseline": command.baseline}
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


def run_finetune(command: Finetune) -> None:
    """`jaxsmooth finetune`."""
    set_up_jax()
    from .. import report
    from ..training import loop, run, sharding

    report.check_writable(command.config.out)
    sharding.join_processes(command.coordinator, command.processes, command.process)
    if command.dry_run:
        loop.check_folder(command.config)
        table = Table("what", "how much", show_header=False)
        for name, value in run.describe(run.prepare(command.config)).items():
            table.add_row(name.replace("_", " "), f"{value:,.0f}" if isinstance(value, (int, float)) else str(value))
        PlainConsole().print(table)
        return
    outcome = loop.finetune(command.config, progress=True)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in outcome.scores.items())
    early = ", stopped early" if outcome.stopped_early else ""
    if outcome.begun == outcome.steps:
        more = "a larger --patience, or 0," if outcome.stopped_early else "more --steps or --epochs"
        say(f"This run was finished before, and nothing was done; with {more} it goes on.")
    say(f"{outcome.steps} steps{early}; best at step {outcome.best_step}: {scores} -> {outcome.folder}")


def run_evaluate(command: Evaluate) -> None:
    """`jaxsmooth evaluate`."""
    set_up_jax()
    from ..files import strict
    from ..training import predict

    found = predict.evaluate(
        command.run,
        command.split,
        step=command.step,
        limit=command.limit,
        each_token=command.each_token,
        progress=True,
    )
    print(json.dumps(strict(found), indent=2, allow_nan=False))  # in ASCII, which any terminal and reader can take


def run_predict(command: Predict) -> None:
    """`jaxsmooth predict`."""
    set_up_jax()
    from .. import report
    from ..training import predict

    if command.out.is_dir():
        raise ConfigError(f"--out must name a file; {command.out} is a folder.")
    report.check_writable(command.out.parent)
    count = predict.write_predictions(
        command.run, command.data, command.out, columns=command.columns, missing=command.missing, progress=True
    )
    say(f"{count} predictions -> {command.out}")


def run_remedies() -> None:
    """`jaxsmooth remedies`."""
    from ..mitigations.parse import METHODS

    table = Table("remedy", "parameters and defaults", "source", show_lines=True)
    for name, method in METHODS.items():
        parameters = (
            f"{key}{'' if one.default is None else f' = {one.default:g}'}: {one.about}"
            for key, one in method.parameters.items()
        )
        table.add_row(name, "\n".join(parameters) or "none", method.source)
    PlainConsole().print(table)
    say("For example: jaxsmooth compare minilm-l6 --with attnscale:0.3,gfsa:power=0.2:order=4,contranorm+neutreno")


def run_glossary(command: Glossary) -> None:
    """`jaxsmooth glossary`."""
    from ..report.sections import glossary

    if command.name is None:
        say("; ".join(entry.title for entry in glossary.GLOSSARY.values()))
        say("What one of them means: jaxsmooth glossary WORD")
        return
    found = glossary.find(command.name)
    if not found:
        known = [*glossary.GLOSSARY, *(entry.title for entry in glossary.GLOSSARY.values())]
        raise ConfigError(f"the glossary has no {command.name!r}.{did_you_mean(command.name, known)}")
    for entry in found:
        say(glossary.in_words(entry))


def run_aot(command: AotConfig) -> None:
    """`jaxsmooth aot`."""
    set_up_jax()
    from .. import report
    from ..training import aot

    if command.out:
        report.check_writable(command.out.parent)
    found = aot.compile_ahead(command)
    table = Table("per device and step", found.target, title="compiled with the production compiler; not executed")
    rows = {
        "devices": f"{found.devices} {found.mesh or ''}",
        "memory": f"{found.memory / 2**30:.2f} GiB of {found.available / 2**30:.2f} GiB",
        "recomputed in the backward pass": found.remat,
        "of it state": f"{found.arguments / 2**30:.2f} GiB",
        "of it temporaries": f"{found.temporaries / 2**30:.2f} GiB",
        "attention": f"{found.kernels} calls of a kernel" if found.kernels else "explicit",
        "model FLOPs": f"{found.model_flops:.3g}",
        "compiler's FLOPs": "not reported" if found.flops is None else f"{found.flops:.3g}",
        "compiler's HBM bytes": "not reported" if found.bytes_accessed is None else f"{found.bytes_accessed:.3g}",
        **{each.kind: f"{each.count} x, {each.bytes / 1e6:,.1f} MB in all" for each in found.collectives},
        "no step is faster than": f"{1e3 * found.seconds:.3f} ms, by {found.bound}",
        "MFU at most": f"{found.utilisation:.0%}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    PlainConsole().print(table)
    if command.out:
        say(aot.write_aot(found, command.out))


def run_assets(command: ListAssets | FetchAsset | AssetPath | ClearAssets | VerifyAssets) -> None:
    """`jaxsmooth assets list|fetch|path|clear|verify`."""
    from .. import assets

    match command:
        case ListAssets():
            table = Table("name", "kind", "MB", "licence", "state", "description")
            for asset, state in assets.assets_table():
                table.add_row(asset.name, asset.kind, f"{asset.size_mb:.1f}", asset.licence, state, asset.description)
            PlainConsole().print(table)
        case FetchAsset(name):
            say(assets.fetch(name))
        case AssetPath(name):
            say(assets.asset_path(name))
        case ClearAssets(name, everything):
            if (name is None) is not everything:
                raise AssetError("name the one asset to clear, or give --all and no name.")
            removed = assets.clear(name)
            say(f"removed {', '.join(removed)}" if removed else "nothing to remove")
        case VerifyAssets(name):
            found = assets.verify(name)
            for asset_name, state, why in found:
                say(f"{asset_name}: {state}{': ' * bool(why)}{why}")
            if any(state == "damaged" for _, state, _ in found):
                raise AssetError("some cached files are damaged; `jaxsmooth assets fetch NAME` replaces them.")


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
    _keep_compiled_programs(jax)
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

    named = parse_columns(columns)
    if named.keys() - {"text"}:
        raise DataError(f"only texts are read here: --columns must be text=NAME; got {columns!r}.")
    return named.get("text", "text")


def set_up_jax() -> None:
    """What training needs before jax is first used."""
    import logging

    import jax

    # orbax warns of each checkpoint that has no score, and logs the trace of every thread and write of a save that
    # fails, which it raises as well
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _report_unraisable

    _keep_compiled_programs(jax)


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    # The other writes of a save that has failed end after its event loop, each with a trace of that.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _keep_compiled_programs(jax: ModuleType) -> None:
    """Compile once per machine, not once per run, unless the user has a cache of their own."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        from ..assets import cache_dir

        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _traced_programs() -> Path | None:
    """Where traced programs are kept: beside the compiled ones, if these are kept at all."""
    import jax

    compiled = getattr(jax.config, "jax_compilation_cache_dir", None)
    return Path(compiled) / "traced" if compiled else None
