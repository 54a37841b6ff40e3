"""The encoder's hyper-parameters, read from a Hugging Face `config.json`."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError

# Hugging Face's names of activations -> ours. The exact erf form is BERT's "gelu".
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
FAMILIES = ("bert",)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of one encoder. Hashable, so it travels as static structure of the model.

    Field names are ours; `from_dict` and `to_dict` translate Hugging Face's. `std_init` is the standard
    deviation of BERT's truncated-normal initialisation; `note` goes with every report on the model and says what is
    odd about its weights ("4-bit weights").

    Raises:
      ConfigError: a value of the wrong type or out of range.

    >>> EncoderConfig(vocab=100, width=48, layers=2, heads=4, mlp_width=96).head_width
    12
    """

    vocab: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    max_length: int = 512
    segments: int = 2
    activation: str = "gelu"
    eps: float = 1e-12
    std_init: float = 0.02
    pad_token: int = 0
    family: str = "bert"
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "layers", "heads", "mlp_width", "max_length", "segments"):
            # 2**31: sizes are array dimensions; beyond it every allocation fails with a worse message.
            least = 0 if name == "segments" else 1
            _require_int(name, getattr(self, name), least, 2**31 - 1)
        _require_int("pad_token", self.pad_token, 0, self.vocab - 1)
        for name in ("eps", "std_init"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Compared, not math.isfinite: an integer beyond float64 would raise OverflowError.
            if not (number and 0 <= value <= sys.float_info.max):
                raise ConfigError(f"{name} must be a finite number >= 0; got {value!r}.")
        if self.width % self.heads:
            raise ConfigError(
                f"width must be a multiple of heads; got width={self.width}, heads={self.heads} "
                "(hidden_size and num_attention_heads in config.json)."
            )
        if self.activation not in ACTIVATIONS.values():
            raise ConfigError(
                f"activation must be one of {sorted(set(ACTIVATIONS.values()))}; got {self.activation!r}."
            )
        if self.family not in FAMILIES:
            raise ConfigError(f"family must be one of {FAMILIES}; got {self.family!r}.")
        if not isinstance(self.note, str):
            raise ConfigError(f"note ({_KEYS['note']} in config.json) must be a string; got {self.note!r}.")

    @property
    def head_width(self) -> int:
        """Width of one head, D / N."""
        return self.width // self.heads

    @classmethod
    def from_dict(cls, hf: Mapping[str, Any]) -> "EncoderConfig":
        """Translate the content of a Hugging Face `config.json`.

        Raises:
          ConfigError: a family, activation or positional scheme that this encoder does not have, a missing
            key, or a bad value.

        >>> EncoderConfig.from_dict({"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6,
        ...     "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522}).head_width
        32
        """
        if not isinstance(hf, Mapping):
            raise ConfigError(f"config.json must hold one JSON object; got {type(hf).__name__}.")
        family = hf.get("model_type")
        if family not in FAMILIES:
            raise ConfigError(
                f"model_type must be one of {FAMILIES}; got {family!r}. Other families are not supported."
            )
        _refuse(hf, "position_embedding_type", "absolute")
        _refuse(hf, "is_decoder", False)
        _refuse(hf, "add_cross_attention", False)
        activation = hf.get("hidden_act", "gelu")
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ConfigError(f"hidden_act must be one of {sorted(ACTIVATIONS)}; got {activation!r}.")
        values = {ours: hf[theirs] for ours, theirs in _KEYS.items() if theirs in hf}
        if values.get("pad_token", 0) is None:  # Hugging Face writes null for a model without one
            del values["pad_token"]
        for ours in ("vocab", "width", "layers", "heads", "mlp_width"):
            if ours not in values:
                raise ConfigError(f"config.json lacks {_KEYS[ours]!r}.")
        return cls(**values, activation=ACTIVATIONS[activation], family=family)

    @classmethod
    def from_file(cls, path: str | Path) -> "EncoderConfig":
        """Read a Hugging Face `config.json`.

        Raises:
          ConfigError: as `from_dict`; also a file that is missing, not UTF-8 or not JSON.
        """
        path = Path(path)
        try:
            hf = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"{path} does not exist; a Hugging Face model directory holds a config.json.") from error
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not readable JSON: {error}") from error
        try:
            return cls.from_dict(hf)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The Hugging Face `config.json` of this encoder; `from_dict` inverts it."""
        activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == self.activation)
        keys = {theirs: getattr(self, ours) for ours, theirs in _KEYS.items() if ours != "note" or self.note}
        return {"architectures": ["BertModel"], "model_type": self.family, "hidden_act": activation, **keys}


_KEYS = {
    "vocab": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_length": "max_position_embeddings",
    "segments": "type_vocab_size",
    "eps": "layer_norm_eps",
    "std_init": "initializer_range",
    "pad_token": "pad_token_id",
    "note": "jaxsmooth_note",  # ours: other readers pass over it
}


def _require_int(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        theirs = _KEYS[name]
        raise ConfigError(f"{name} ({theirs} in config.json) must be an integer from {least} to {most}; got {value!r}.")


def _refuse(hf: Mapping[str, Any], key: str, only: object) -> None:
    if key in hf and hf[key] != only:
        raise ConfigError(f"{key} must be {only!r}; got {hf[key]!r}, which this encoder does not have.")
