"""The command line: parse, call, print."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import JaxsmoothError, PreemptedError
from ..files import spelled_out
from ..paths import folder_name
from ..terminal import say
from ..training.config import AotConfig
from . import lists, runs, studies
from .commands import Evaluate, Finetune, Glossary, Predict, Remedies, Study
from .jax_settings import set_up_jax as set_up_jax
from .parsing import parse


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
            return studies.run_study(command)
        case Finetune():
            runs.run_finetune(command)
        case Evaluate():
            runs.run_evaluate(command)
        case Predict():
            runs.run_predict(command)
        case AotConfig():
            runs.run_aot(command)
        case Remedies():
            lists.run_remedies()
        case Glossary():
            lists.run_glossary(command)
        case _:
            lists.run_assets(command)
    return 0


def _at_home(command: Any) -> Any:
    """The command with paths filled in: "~", which a shell leaves as it is in `--out=~/run`, and {model} or {run}."""
    values = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    paths = {name: Path(spelled_out(value)) for name, value in values.items() if isinstance(value, Path)}
    if "out" in paths:
        for word in {"model", "run"} & values.keys():
            paths["out"] = Path(str(paths["out"]).replace(f"{{{word}}}", folder_name(values[word])))
    return dataclasses.replace(command, **paths)
