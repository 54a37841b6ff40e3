"""Files of settings: written beside what a study writes, and read by --config."""

import contextlib
import dataclasses
import io
import typing
from pathlib import Path
from typing import Any

import tyro

from ..errors import ConfigError, did_you_mean
from ..files import atomic_write, dumps_strict
from ..json_reading import loads
from ..paths import refuse_address
from .options import Option, options_of

SETTINGS = "settings.json"


def write_settings(command: Any, folder: Path) -> Path:
    """Write every setting of a command, as --config reads them.

    Args:
      command: the dataclass of a command.
      folder: where `SETTINGS` goes.

    Returns:
      The file.
    """
    values = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return atomic_write(folder / SETTINGS, dumps_strict(plain, indent=2) + "\n")


def read_settings(path: Path, command: type) -> dict[str, Any]:
    """The settings of a file.

    Args:
      path: YAML (.yaml, .yml) or JSON: one mapping of names, with "_" or "-", to values.
      command: the dataclass whose settings they are.

    Returns:
      Values by name, of the settings' types.

    Raises:
      ConfigError: no such file, another format, a name that is none of the command's, or a value that does not fit.
    """
    found: dict[str, Any] = {}
    known = options_of(command)
    for name, value in _mapping(path).items():
        plain = _ALIASES.get(str(name), str(name).replace("-", "_"))
        if plain not in known:
            raise ConfigError(f"{path}: there is no setting {name!r}.{did_you_mean(plain, known)}")
        found[plain] = _value(plain, value, known[plain], path)
    return found


_ALIASES = {"with": "remedies"}


def _mapping(path: Path) -> dict[Any, Any]:
    import yaml

    refuse_address(path, ConfigError)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) if path.suffix.lower() in (".yaml", ".yml") else loads(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{path} cannot be read as settings: {why}. Expected YAML in a .yaml file, or JSON."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold one mapping of settings to values; got {type(values).__name__}.")
    return values


def _value(name: str, value: Any, option: Option, path: Path) -> Any:
    """As the flag of that name reads it: YAML takes 2e-5 for a word."""
    hint = typing.get_args(option.hint)[0] if typing.get_origin(option.hint) is typing.Annotated else option.hint
    if isinstance(value, str) and hint in (str, Path, Path | None):
        return value if hint is str else Path(value)
    words = [str(word) for word in value] if isinstance(value, (list, tuple)) else [str(value)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(hint, args=words)
    except SystemExit:
        kind = getattr(hint, "__name__", str(hint).replace("typing.", ""))
        raise ConfigError(f"{path}: {name} must be {kind}; got {value!r}.") from None
