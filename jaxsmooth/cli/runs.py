"""`jaxsmooth finetune`, `evaluate`, `predict`, `aot`: training, what it left, and its step for other machines."""

import json

from rich.table import Table

from ..errors import ConfigError
from ..heap import keep_freed
from ..terminal import PlainConsole, say
from ..training.config import AotConfig
from .commands import Evaluate, Finetune, Predict
from .jax_settings import set_up_jax


def run_finetune(command: Finetune) -> None:
    """`jaxsmooth finetune`."""
    keep_freed()
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
