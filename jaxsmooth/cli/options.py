"""From a command's dataclass to its flags: grouped, described, read by tyro, with defaults from a file of settings."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import docstring_parser
import tyro

POSITIONAL = {"model": "MODEL", "model_size": "MODEL", "run": "RUN", "name": "NAME"}
"""Settings that are given by their place -> what help calls them."""

CONFIG = "YAML or JSON file of settings, as a run or a study writes one; the command line overrides it."
_METAVARS: dict[Any, str] = {int: "N", int | None: "N", float: "X", tuple[float, ...]: "X [X ...]"}
_NOTHING = ("", None, (), False)


class Option(NamedTuple):
    """One setting of a command.

    Attributes:
      hint: its type.
      default: `dataclasses.MISSING` where it must be given.
      about: its description.
    """

    hint: Any
    default: Any
    about: str


def options_of(command: type) -> dict[str, Option]:
    """The settings of a command by name; of a dataclass among them its own, in its place.

    Args:
      command: a dataclass.
    """
    found: dict[str, Option] = {}
    hints = typing.get_type_hints(command, include_extras=True)
    parsed = [docstring_parser.parse_from_object(kind) for kind in reversed(command.__mro__[:-1])]
    about = {one.arg_name: " ".join((one.description or "").split()) for each in parsed for one in each.params}
    for field in dataclasses.fields(command):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= options_of(typing.cast(type, hint))
        else:
            found[field.name] = Option(hint, field.default, about.get(field.name, ""))
    return found


def read_options(
    command: type,
    arguments: Sequence[str],
    *,
    prog: str,
    about: str,
    groups: Mapping[str, str],
    given: Mapping[str, Any],
) -> Any:
    """A command from its part of the command line.

    Args:
      command: a dataclass.
      arguments: what follows the command's name.
      prog: what help calls it.
      about: its description in help.
      groups: title -> names of settings, between spaces.
      given: settings of a file, which replace the defaults.

    Returns:
      A `command`.

    Raises:
      SystemExit: help was asked for (0), or the arguments do not fit (2).
    """
    options = {
        name: option._replace(default=given.get(name, option.default)) for name, option in options_of(command).items()
    }
    homes = {name: title for title, names in groups.items() for name in names.split()}
    first = [_field(name, option) for name, option in options.items() if name in POSITIONAL]
    rest = [_field(name, option) for name, option in options.items() if name not in POSITIONAL and name not in homes]
    config = ("config", Annotated[Path | None, tyro.conf.arg(metavar="FILE", help=CONFIG, help_behavior_hint="")])
    parts = []
    for title in groups:
        fields = [_field(name, options[name]) for name in groups[title].split() if name in options]
        part = _make(title, fields)
        parts.append((title, Annotated[part, tyro.conf.OmitArgPrefixes], dataclasses.field(default_factory=part)))
    whole = _make(command.__name__, [*first, *([(*config, None)] if groups else ()), *rest, *parts])
    found = tyro.cli(whole, prog=prog, description=about, args=list(arguments))
    flat = {**vars(found), **{name: value for title in groups for name, value in vars(getattr(found, title)).items()}}
    return _built(command, flat)


def _make(name: str, fields: list[Any]) -> Any:
    return dataclasses.make_dataclass(name, fields, namespace={"__doc__": ""}, frozen=True)


def _field(name: str, option: Option) -> tuple[str, Any, Any]:
    """Name, annotated type and default of a field as tyro reads it."""
    bare = typing.get_args(option.hint)[0] if typing.get_origin(option.hint) is Annotated else option.hint
    shown: dict[str, Any] = {"help": option.about}
    marks: list[Any] = []
    if any(option.default is nothing for nothing in _NOTHING):
        shown["help_behavior_hint"] = ""
    if name in POSITIONAL:
        required = option.default is dataclasses.MISSING
        marks, shown["metavar"] = [tyro.conf.Positional], POSITIONAL[name] if required else f"[{POSITIONAL[name]}]"
    elif bare in _METAVARS:
        shown["metavar"] = _METAVARS[bare]
    elif bare in (Path, Path | None):
        shown["metavar"] = "PATH"
    elif bare in (str, tuple[str, ...]):
        shown["metavar"] = name.rpartition("_")[2].upper()
    elif bare is bool and not option.default:
        marks = [tyro.conf.FlagCreatePairsOff]
    elif bare is bool:
        shown["help_behavior_hint"] = "(default: on)"
    default = dataclasses.field() if option.default is dataclasses.MISSING else option.default
    return name, Annotated[(option.hint, tyro.conf.arg(**shown), *marks)], default


def _built(command: type, values: Mapping[str, Any]) -> Any:
    """The dataclass of the settings of these names, and the dataclasses in it."""
    hints = typing.get_type_hints(command)
    own = {
        field.name: _built(hints[field.name], values)
        if dataclasses.is_dataclass(hints[field.name])
        else values[field.name]
        for field in dataclasses.fields(command)
    }
    return command(**own)
