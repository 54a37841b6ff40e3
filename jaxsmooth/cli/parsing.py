"""From the command line to a command: which one it names, its flags, its file of settings."""

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union

import tyro

from ..errors import did_you_mean
from ..files import spelled_out
from ..terminal import say
from .commands import COMMANDS, Entry
from .options import read_options
from .settings import read_settings

ABOUT = """Does a Transformer encoder over-smooth, where, why, and what stops it?

Start with:
  jaxsmooth diagnose tiny --data tiny      (needs no download)
  jaxsmooth diagnose minilm-l6 --limit 64
  jaxsmooth COMMAND --help                 (its flags, with examples)
  jaxsmooth --version"""
ASSETS = "The pinned models and texts: list, fetch, path, clear, verify."


def parse(arguments: list[str] | None = None) -> Any:
    """The command that the command line names.

    Args:
      arguments: without the program's name; those of the process if left out.

    Returns:
      One of the dataclasses of `commands`.

    Raises:
      SystemExit: after help or the version (0), or after words on what does not fit (2).
      ConfigError: a file of settings that does not fit, or settings that contradict each other.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        say(f"jaxsmooth {version('jaxsmooth')}")
        raise SystemExit(0)
    complaint = io.StringIO()
    try:
        # What tyro says of wrong arguments repeats them, so it passes through `say`.
        with contextlib.redirect_stderr(complaint):
            return _parse(COMMANDS, given, "jaxsmooth", ABOUT)
    finally:
        if complaint.getvalue():
            say(complaint.getvalue().rstrip("\n"), stderr=True)


def _parse(tree: Mapping[str, Any], given: list[str], prog: str, about: str) -> Any:
    name = given[0] if given else "-"
    entry = tree.get(name)
    if isinstance(entry, dict):
        return _parse(entry, given[1:], f"{prog} {name}", ASSETS)
    if isinstance(entry, Entry):
        return _read(entry, given[1:], f"{prog} {name}")
    if not name.startswith("-"):
        _refuse(f"there is no command {name!r}; the commands are {', '.join(tree)}.{did_you_mean(name, tree)}", prog)
    return _overview(tree, given, prog, about)


def _read(entry: Entry, given: list[str], prog: str) -> Any:
    first = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    found, rest = first.parse_known_args(given)
    settings = {} if found.config is None else read_settings(Path(spelled_out(found.config)), entry.command)
    about = _summary(entry)
    if entry.examples:
        about += "\n\nExamples:\n" + "\n".join(f"  jaxsmooth {example}" for example in entry.examples)
    return read_options(entry.command, rest, prog=prog, about=about, groups=entry.groups, given=settings)


def _overview(tree: Mapping[str, Any], given: list[str], prog: str, about: str) -> NoReturn:
    """Help on all commands, or what is wrong with a command line that names none."""
    kinds = []
    for name, entry in tree.items():
        line = _summary(entry) if isinstance(entry, Entry) else ASSETS
        empty = dataclasses.make_dataclass(name, [], namespace={"__doc__": line})
        kinds.append(Annotated[empty, tyro.conf.subcommand(name, description=line)])
    tyro.cli(Union[tuple(kinds)], prog=prog, description=about, args=given)  # type: ignore[call-overload]  # noqa: UP007
    raise AssertionError("no command was named")


def _summary(entry: Entry) -> str:
    return " ".join((entry.command.__doc__ or "").split("\n\n")[0].split())


def _refuse(words: str, prog: str) -> NoReturn:
    print(f"jaxsmooth: {words} Help: {prog} --help", file=sys.stderr)
    raise SystemExit(2)
