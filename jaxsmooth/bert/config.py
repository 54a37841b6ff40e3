"""The encoder's hyper-parameters, read from a Hugging Face `config.json`."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.families import FAMILIES, Family, translate
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
PLACEMENTS = ("post", "pre", "sandwich")
NORMS = ("layernorm", "rmsnorm", "none")
POSITIONS = ("learned", "rotary", "none")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of one encoder. Hashable, so it travels as static structure of the model.

    Field names are ours; `from_dict` and `to_dict` translate Hugging Face's. The defaults are BERT-base; every
    other family the field compares is a setting of the fields below the first group.

    Attributes:
      vocab: rows of the word table.
      width: D.
      layers: L.
      heads: N, a divisor of `width`.
      mlp_width: F.
      max_length: longest sentence, in tokens. The position table has `position_offset` rows more.
      segments: rows of the segment (token type) table; 0 for none.
      activation: "gelu" (exact, with erf), "gelu_tanh", "relu" or "silu".
      eps: epsilon of the norms, added to the variance.
      std_init: standard deviation of BERT's truncated-normal initialisation.
      pad_token: id of the padding token.
      family: which table of tensor names and configuration keys the model came with.
      note: goes with every report on the model and says what is odd about its weights ("4-bit weights").

      embedding_width: E, width of the embedding tables where a projection to `width` follows; 0 for none.
      norm: "layernorm"; "rmsnorm" (no centring); "none" (the norms only multiply by their gain).
      placement: where the norms stand: "post", LN(x + f(x)), as in BERT; "pre", x + f(LN(x)); "sandwich",
        x + LN(f(LN(x))).
      embedding_norm, final_norm: whether a norm follows the embedding, and the last block.
      first_norm: False where the first block's attention reads its input without a norm, as ModernBERT's.
      skip_scale: multiplies the residual stream at each sum: DeepNorm's alpha, (2 L)^(1/4) in a BERT, whose initial
        weights `params.scale_branches` then scales by (8 L)^(-1/4).
      branch_scale: multiplies each sub-layer's output before the sum (1/sqrt(L) in Noci et al.).
      shared_layers: one set of block parameters, applied L times, as in ALBERT.
      positions: "learned" (a table added at the embedding), "rotary" (queries and keys are rotated), "none".
      position_offset: id of the first position; where it is not 0, positions count real tokens only, as RoBERTa's.
      relative_buckets: rows of a table of T5-style relative attention biases, shared by all layers; 0 for none.
      causal: whether tokens see themselves and earlier tokens only.
      window: how many tokens to either side a local layer sees; 0 for all.
      global_every: each `global_every`-th layer, from the first, has no window; 0 makes every layer local.
      rotary_base: base of the rotary wavelengths; `rotary_base_local` is that of local layers.
      gated: the MLP is f(x W_up) * (x W_gate), times W_down.
      attn_bias, mlp_bias, norm_bias: whether the linear maps and the norms have biases.
      image_size, patch_size, channels: of a vision encoder, in pixels; patch_size 0 means text.
      class_tokens: learned tokens before the patches: 1 in ViT, 2 in a distilled DeiT.
      pooler_activation: of the dense layer over the first token: "tanh" in BERT, "relu" in DistilBERT, "gelu" in
        ELECTRA.

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

    embedding_width: int = 0
    norm: str = "layernorm"
    placement: str = "post"
    embedding_norm: bool = True
    final_norm: bool = False
    first_norm: bool = True
    skip_scale: float = 1.0
    branch_scale: float = 1.0
    shared_layers: bool = False
    positions: str = "learned"
    position_offset: int = 0
    relative_buckets: int = 0
    causal: bool = False
    window: int = 0
    global_every: int = 0
    rotary_base: float = 10_000.0
    rotary_base_local: float = 10_000.0
    gated: bool = False
    attn_bias: bool = True
    mlp_bias: bool = True
    norm_bias: bool = True
    image_size: int = 0
    patch_size: int = 0
    channels: int = 3
    class_tokens: int = 1
    pooler_activation: str = "tanh"

    def __post_init__(self) -> None:
        keys = _family(self.family).keys
        # 2**31: sizes are array dimensions; beyond it every allocation fails with a worse message.
        for name, least in _INTEGERS.items():
            _require_int(name, getattr(self, name), least, 2**31 - 1, keys.get(name))
        _require_int("pad_token", self.pad_token, 0, self.vocab - 1, keys.get("pad_token"))
        for name in ("eps", "std_init", "skip_scale", "branch_scale", "rotary_base", "rotary_base_local"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Compared, not math.isfinite: an integer beyond float64 would raise OverflowError.
            if not (number and 0 <= value <= sys.float_info.max):
                raise ConfigError(f"{name} must be a finite number >= 0; got {value!r}.")
        for field in dataclasses.fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise ConfigError(f"{field.name} must be true or false; got {getattr(self, field.name)!r}.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}.")
        if self.width % self.heads:
            raise ConfigError(
                f"width must be a multiple of heads; got width={self.width}, heads={self.heads} "
                "(hidden_size and num_attention_heads in config.json)."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ConfigError(f"rotary positions need an even head width; got {self.head_width}.")
        for name in ("rotary_base", "rotary_base_local"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)!r}.")
        if not self.first_norm and self.placement == "post":
            raise ConfigError(
                "first_norm=False leaves out the norm before the first attention; post-LN has none there."
            )
        if 0 < self.relative_buckets < 4:
            raise ConfigError(f"relative_buckets must be 0 or at least 4; got {self.relative_buckets}.")
        if self.patch_size and (self.image_size % self.patch_size or not self.image_size):
            raise ConfigError(
                f"image_size must be a positive multiple of patch_size; got {self.image_size} and {self.patch_size}."
            )
        if not isinstance(self.note, str):
            raise ConfigError(f"note ({NOTE_KEY} in config.json) must be a string; got {self.note!r}.")

    @property
    def table_width(self) -> int:
        """Width of the embedding tables, E."""
        return self.embedding_width or self.width

    @property
    def is_vision(self) -> bool:
        """Whether the encoder reads images instead of tokens."""
        return self.patch_size > 0

    @property
    def is_plain(self) -> bool:
        """Whether a block is the post-LN block of Shi et al. (2022), which the ladder of bounds speaks of.

        LayerNorm after each unscaled residual sum, an ungated MLP. Masks, positions, sharing and factorised
        embeddings do not matter: the bounds take a block's own attention.
        """
        return not self.departures

    @property
    def is_pre_norm(self) -> bool:
        """Whether a block is the pre-LN block that `theory.pre_norm_block_rate` is about.

        LayerNorm before both sub-layers, unscaled residual sums, an ungated MLP.
        """
        return self.first_norm and self.departures == ("pre-LN blocks",)

    @property
    def departures(self) -> tuple[str, ...]:
        """What sets a block apart from BERT's, in words; empty for a plain one."""
        norms = {"rmsnorm": "RMSNorm in place of LayerNorm", "none": "no normalisation"}
        found = {
            norms.get(self.norm, ""): self.norm != "layernorm",
            f"{self.placement}-LN blocks": self.placement != "post",
            "scaled residual sums": not self.skip_scale == self.branch_scale == 1,
            "gated MLPs": self.gated,
        }
        return tuple(words for words, holds in found.items() if holds)

    @property
    def has_plain_scores(self) -> bool:
        """Whether attention is the softmax of q_i . k_j / sqrt(H) over all real tokens, by content alone."""
        return not (self.positions == "rotary" or self.relative_buckets or self.causal or self.window)

    @property
    def head_width(self) -> int:
        """Width of one head, D / N."""
        return self.width // self.heads

    @property
    def position_rows(self) -> int:
        """Rows of the position table."""
        patches = (self.image_size // self.patch_size) ** 2 if self.is_vision else 0
        return self.class_tokens + patches if self.is_vision else self.max_length + self.position_offset

    @classmethod
    def of(cls, family: str, **fields: Any) -> "EncoderConfig":
        """The settings of a family, with the fields that are given; sizes left out are BERT-base's.

        Raises:
          ConfigError: an unknown family, or a bad value.

        >>> EncoderConfig.of("gpt2", width=48, heads=4).causal
        True
        """
        known = _family(family)
        own = {"activation": ACTIVATIONS[known.activation[1]], **known.defaults, **known.settings}
        return cls(**{**own, **fields, "family": family})

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
        family = _family(hf.get("model_type"))
        key, usual = family.activation
        activation = hf.get(key, usual)
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ConfigError(f"{key} must be one of {sorted(ACTIVATIONS)}; got {activation!r}.")
        own = hf.get(OWN_KEY, {})
        fields = {field.name for field in dataclasses.fields(cls)} - {"family"}
        if not isinstance(own, Mapping) or not own.keys() <= fields:
            raise ConfigError(f"{OWN_KEY} must map fields of EncoderConfig to values; got {own!r}.")
        values = {**translate(family, hf), "activation": ACTIVATIONS[activation], "note": hf.get(NOTE_KEY, "")}
        return cls(**{**values, **own, "family": hf["model_type"]})

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
        """The Hugging Face `config.json` of this encoder; `from_dict` inverts it.

        What the family's keys cannot say (a BERT with sandwich norms) stands under a key of our own, which other
        readers pass over.
        """
        family = _family(self.family)
        activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == self.activation)
        hf = {"architectures": [family.architecture], "model_type": self.family, family.activation[0]: activation}
        hf |= {theirs: getattr(self, ours) for ours, theirs in family.keys.items()}
        hf |= family.write(self)
        if self.note:
            hf[NOTE_KEY] = self.note
        said = {**_DEFAULTS, **translate(family, hf), **{name: getattr(self, name) for name in _TRANSLATED}}
        own = {name: getattr(self, name) for name in _DEFAULTS if getattr(self, name) != said[name]}
        return {**hf, OWN_KEY: own} if own else hf


NOTE_KEY, OWN_KEY = "jaxsmooth_note", "jaxsmooth"  # ours: other readers pass over them
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(EncoderConfig)}
_TRANSLATED = ("activation", "family", "note")


def _family(name: object) -> Family:
    if not isinstance(name, str) or name not in FAMILIES:
        raise ConfigError(
            f"model_type must be one of {tuple(FAMILIES)}; got {name!r}. Other families are not supported."
        )
    return FAMILIES[name]


_INTEGERS = {
    **dict.fromkeys(("vocab", "width", "layers", "heads", "mlp_width", "max_length", "channels", "class_tokens"), 1),
    **dict.fromkeys(("segments", "embedding_width", "position_offset", "relative_buckets", "window"), 0),
    **dict.fromkeys(("global_every", "image_size", "patch_size"), 0),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "activation": tuple(sorted(set(ACTIVATIONS.values()))),
    "norm": NORMS,
    "pooler_activation": ("tanh", "relu", "gelu"),
    "placement": PLACEMENTS,
    "positions": POSITIONS,
}


def _require_int(name: str, value: object, least: int, most: int, key: str | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        theirs = f" ({key} in config.json)" if key else ""
        raise ConfigError(f"{name}{theirs} must be an integer from {least} to {most}; got {value!r}.")
