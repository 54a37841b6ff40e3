"""The encoder's configuration as a Hugging Face `config.json`: read, written, and each family's usual settings."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..bert.config import EncoderConfig
from ..errors import ConfigError, arguments_checked, is_int
from ..json_reading import loads
from .families import FAMILIES, Family, Values
from .model_type import with_model_type

ACTIVATION_NAMES = {
    "gelu": "gelu",  # exact, with erf
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    # transformers' other ways to compute the tanh form: within 1e-12 of each other for |x| <= 8
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Hugging Face's names of activations -> ours."""

NOTE_KEY, OWN_KEY, ANSWER_KEY = "jaxsmooth_note", "jaxsmooth", "jaxsmooth_answer"
"""Keys of our own, which other readers ignore: the note, fields that the family's keys cannot express, and the known
answer of `self_check`."""

WRITTEN_ANEW = (
    *("model_type", "architectures", "dtype", "torch_dtype", "quantization_config", "transformers_version"),
    *(NOTE_KEY, OWN_KEY, ANSWER_KEY),
)
"""Keys that say what the files hold and who wrote them: none is kept from the file that was read."""

SIZES = ("vocab", "width", "layers", "heads", "mlp_width")
"""Fields that are never guessed: their keys must be there, where the family has such a key."""

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(EncoderConfig) if field.name != "other_keys"}
_FLOATS = tuple(field.name for field in dataclasses.fields(EncoderConfig) if field.type is float)


@arguments_checked
def family_config(family: str, **fields: Any) -> EncoderConfig:
    """The configuration of a family, with the fields that are given; sizes left out are BERT-base's.

    Args:
      family: transformers' `model_type`, as "gpt2".
      **fields: fields of `EncoderConfig`.

    Returns:
      An `EncoderConfig`.

    Raises:
      ConfigError: an unknown family, or a bad value.

    >>> family_config("gpt2", width=48, heads=4).causal
    True
    """
    row = _row(family)
    usual = {"activation": ACTIVATION_NAMES[row.activation[1]], **row.defaults, **row.settings}
    return EncoderConfig(**{**usual, **fields, "family": family})


@arguments_checked
def config_from_dict(hf: Mapping[str, Any]) -> EncoderConfig:
    """Translate the content of a Hugging Face `config.json`.

    Args:
      hf: the JSON object. What no field here corresponds to is kept in `other_keys`, for `config_to_dict`.

    Returns:
      An `EncoderConfig`.

    Raises:
      ConfigError: a family, activation or positional scheme that this encoder does not have, a missing key, or a
        bad value; the message names the key.

    >>> config_from_dict({"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    ...     "intermediate_size": 1536, "vocab_size": 30522}).head_width
    32
    """
    if not isinstance(hf, Mapping):
        raise ConfigError(f"config.json must hold one JSON object; got {type(hf).__name__}.")
    hf = with_model_type(hf)
    hf = _under_own_names(_row(hf.get("model_type")), hf)
    config = _translated(hf)
    written = _expressed(config)
    other = {k: hf[k] for k in sorted(hf) if k not in WRITTEN_ANEW and not (k in written and written[k] == hf[k])}
    return dataclasses.replace(config, other_keys=json.dumps(other) if other else "")


def _translated(hf: Mapping[str, Any]) -> EncoderConfig:
    """The fields of a `config.json`, without `other_keys`."""
    family = _row(hf.get("model_type"))
    key, usual = family.activation
    activation = hf.get(key, usual)
    if not isinstance(activation, str) or activation not in ACTIVATION_NAMES:
        raise ConfigError(f"{key} must be one of {sorted(ACTIVATION_NAMES)}; got {activation!r}.")
    own = hf.get(OWN_KEY, {})
    if not isinstance(own, Mapping) or not own.keys() <= _DEFAULTS.keys() - {"family"}:
        raise ConfigError(f"{OWN_KEY} must map fields of EncoderConfig to values; got {own!r}.")
    # An integer in the place of a float, which transformers refuses, means the float; 10**400 is refused below.
    fields = {
        name: float(value) if name in _FLOATS and is_int(value, 0, sys.float_info.max) else value
        for name, value in translate(family, hf).items()
    }
    values = {**fields, "activation": ACTIVATION_NAMES[activation], "note": hf.get(NOTE_KEY, "")}
    try:
        return EncoderConfig(**{**values, **own, "family": hf["model_type"]})
    except ConfigError as error:
        raise ConfigError(_with_keys(str(error), {**family.keys, "note": NOTE_KEY})) from error


def _under_own_names(family: Family, hf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys under the names that the family's own configuration has for them."""
    return {family.aliases.get(key, key): value for key, value in hf.items()} | {
        key: hf[key] for key in family.aliases.values() if key in hf
    }


@arguments_checked
def config_from_file(path: str | Path, *, names: Callable[[], Iterable[str]] = tuple) -> EncoderConfig:
    """Read a Hugging Face `config.json`.

    Args:
      path: of the file.
      names: gives the names of the tensors beside it, by which a file without `model_type` is understood.

    Returns:
      An `EncoderConfig`.

    Raises:
      ConfigError: as `config_from_dict`; also a file that is missing, not UTF-8 or not JSON. The message names it.
    """
    path = Path(path)
    try:
        hf = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; a Hugging Face model directory holds a config.json.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from error
    try:
        return config_from_dict(with_model_type(hf, names) if isinstance(hf, dict) else hf)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@arguments_checked
def config_to_dict(config: EncoderConfig) -> dict[str, Any]:
    """The Hugging Face `config.json` of an encoder; `config_from_dict` inverts it.

    What was read with the encoder's configuration is in it again, word for word where it still says what the encoder
    is. What the family's keys cannot express (a BERT with sandwich norms) goes under `OWN_KEY`.

    Args:
      config: any encoder's.

    Returns:
      A JSON object.

    >>> config_to_dict(EncoderConfig(placement="sandwich"))["jaxsmooth"]
    {'placement': 'sandwich'}
    """
    bare = dataclasses.replace(config, other_keys="")
    written = _expressed(bare)
    other = loads(config.other_keys) if config.other_keys else {}
    as_read = {**written, **other}
    try:
        holds = _translated(as_read) == bare
    except ConfigError:
        holds = False  # fields were replaced since
    return as_read if holds else {**written, **{key: value for key, value in other.items() if key not in written}}


def _expressed(config: EncoderConfig) -> dict[str, Any]:
    """The keys that say what the fields are."""
    family = FAMILIES[config.family]
    activation = next(theirs for theirs, ours in ACTIVATION_NAMES.items() if ours == config.activation)
    hf: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": config.family,
        family.activation[0]: activation,
    }
    hf |= {
        # transformers refuses an integer where its configuration has a float
        theirs: float(getattr(config, ours)) if ours in _FLOATS else getattr(config, ours)
        for ours, theirs in family.keys.items()
    }
    hf |= family.write(config)
    if config.note:
        hf[NOTE_KEY] = config.note
    values = {name: getattr(config, name) for name in _DEFAULTS}
    expressed = {"activation": config.activation, "family": config.family, "note": config.note}
    read = {**_DEFAULTS, **translate(family, hf), **expressed}
    own = {name: value for name, value in values.items() if value != read[name]}
    return {**hf, OWN_KEY: own} if own else hf


def translate(family: Family, hf: Mapping[str, Any]) -> Values:
    """Our fields of a `config.json`, unchecked but for what this encoder does not have.

    Args:
      family: the row of its `model_type`.
      hf: the JSON object.

    Returns:
      Fields of `EncoderConfig` and their values; those left out have BERT's defaults.

    Raises:
      ConfigError: a key that holds what the encoder does not have, or a missing size.
    """
    for key, only in family.must.items():
        if hf.get(key) not in (None, only):
            raise ConfigError(f"{key} must be {only!r}; got {hf[key]!r}, which this encoder does not have.")
    values = {"pad_token": 0, **family.defaults, **family.settings}
    # Without a padding token the key is null, or -1, which to RoBERTa is where positions count from.
    none = (None,) if "position_offset" in values else (None, -1)
    values |= {
        ours: hf[key]
        for ours, key in family.keys.items()
        if key in hf and not (ours == "pad_token" and hf[key] in none)
    }
    for ours in SIZES:
        if ours in family.keys and family.keys[ours] not in hf:
            raise ConfigError(f"config.json lacks {family.keys[ours]!r}.")
    return values | family.read(hf, values)


def _row(model_type: object) -> Family:
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(
            f"model_type must be one of {tuple(FAMILIES)}; got {model_type!r}. Other families are not supported."
        )
    return FAMILIES[model_type]


def _with_keys(message: str, keys: Mapping[str, str]) -> str:
    """A message of `EncoderConfig` about its fields, the key that holds each put behind its first mention."""
    for ours, theirs in keys.items():
        message = re.sub(rf"\b{ours}\b", f"{ours} ({theirs} in config.json)", message, count=1)
    return message
