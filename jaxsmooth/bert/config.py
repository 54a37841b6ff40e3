"""The encoder's hyper-parameters; `checkpoints.config_json` reads and writes them as a Hugging Face `config.json`."""

import dataclasses
import sys

from ..activations import ACTIVATIONS
from ..errors import ConfigError, is_int, names_checked

FAMILY_NAMES = (
    *("bert", "roberta", "xlm-roberta", "camembert", "albert", "distilbert", "electra", "mpnet"),
    *("modernbert", "vit", "deit", "gpt2"),
)
OWN_FAMILIES: set[str] = set()
"""Families that `checkpoints.own_family.register_family` has added."""
PLACEMENTS = ("post", "pre", "sandwich")
LAYERS_LIMIT = 2**16
"""Layers may share their parameters, but each makes hidden states of its own."""
LENGTH_LIMIT = 2**24
"""Without a table of positions nothing else bounds a sentence."""
NUMBERS_LIMIT = 2**40
"""Parameters that a model may have: four terabytes."""
NORMS = ("layernorm", "rmsnorm", "none")
POSITIONS = ("learned", "rotary", "none")


@names_checked(ConfigError, "field")
@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of one encoder. Hashable, so it is static structure of the model.

    The defaults are BERT-base; every other family is a setting of the fields below the first group, which
    `checkpoints.config_json.family_config` knows.

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
      family: one of `FAMILY_NAMES` or registered: the form of its heads, the names of its tensors and of its keys.
      note: what is unusual about the weights ("4-bit weights"); every report on the model shows it.
      other_keys: what else the `config.json` said that was read (names of labels, rates of dropout, ids of special
        tokens), as the text of a JSON object; saving writes it back.

      embedding_width: E, width of the embedding tables where a projection to `width` follows; 0 for none.
      norm: "layernorm"; "rmsnorm" (no centring); "none" (the norms only multiply by their gain).
      placement: of the norms: "post", LN(x + f(x)), as in BERT; "pre", x + f(LN(x)); "sandwich",
        x + LN(f(LN(x))).
      embedding_norm, final_norm: whether a norm follows the embedding, and the last block.
      first_norm: False where the first block's attention reads its input without a norm, as ModernBERT's.
      skip_scale: multiplies the residual stream at each sum: DeepNorm's alpha, (2 L)^(1/4) in a BERT. DeepNorm also
        multiplies the initial kernels of value, output and MLP by (8 L)^(-1/4), which `init_encoder` does not.
      branch_scale: multiplies each sub-layer's output before the sum (1/sqrt(L) in Noci et al.).
      shared_layers: one set of block parameters, applied L times, as in ALBERT.
      positions: "learned" (a table added at the embedding), "rotary" (queries and keys are rotated), "none".
      position_offset: id of the first position; where it is not 0, positions count, as RoBERTa's, the tokens whose id
        is not `position_offset` - 1, which is the padding's.
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
    other_keys: str = ""

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
        self._check_types()
        self._check_combinations()
        self._check_size()

    def _check_types(self) -> None:
        """Every field by itself."""
        # 2**31: sizes are array dimensions; beyond it every allocation fails with a worse message.
        limits = {"layers": LAYERS_LIMIT, "max_length": LENGTH_LIMIT}
        for name, least in _INTEGERS.items():
            _require_int(name, getattr(self, name), least, limits.get(name, 2**31 - 1))
        _require_int("pad_token", self.pad_token, 0, self.vocab - 1)
        for name in ("eps", "std_init", "skip_scale", "branch_scale", "rotary_base", "rotary_base_local"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Compared, not math.isfinite: an integer beyond float64 would raise OverflowError.
            if not (number and 0 <= value <= sys.float_info.max):
                raise ConfigError(f"{name} must be a finite number >= 0; got {value!r}.")
        for field in dataclasses.fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise ConfigError(f"{field.name} must be true or false; got {getattr(self, field.name)!r}.")
        for name, choices in _CHOICES.items():
            allowed = (*choices, *sorted(OWN_FAMILIES)) if name == "family" else choices
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}.")
        for name in ("note", "other_keys"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a string; got {getattr(self, name)!r}.")

    def _check_size(self) -> None:
        """All fields together, by their largest arrays: before memory is asked for."""
        tables = (self.vocab * (not self.is_vision) + self.position_rows + self.segments) * self.table_width
        block = self.width * (4 * self.width + (3 if self.gated else 2) * self.mlp_width)
        pixels = self.channels * self.patch_size**2 * self.width
        numbers = tables + pixels + block * (1 if self.shared_layers else self.layers)
        if numbers > NUMBERS_LIMIT:
            raise ConfigError(
                f"a model may have at most {NUMBERS_LIMIT:,} parameters; got {numbers:,}, of vocab={self.vocab}, "
                f"width={self.width}, layers={self.layers}, mlp_width={self.mlp_width}, max_length={self.max_length}."
            )

    def _check_combinations(self) -> None:
        """Fields that must fit each other."""
        if self.width % self.heads:
            raise ConfigError(f"width must be a multiple of heads; got width={self.width}, heads={self.heads}.")
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
        """Whether a block is the post-LN block of Shi et al. (2022), which the ladder of bounds is proved for.

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
        """How a block differs from BERT's, in words; empty for a plain one."""
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


_INTEGERS = {
    **dict.fromkeys(("vocab", "width", "layers", "heads", "mlp_width", "max_length", "channels", "class_tokens"), 1),
    **dict.fromkeys(("segments", "embedding_width", "position_offset", "relative_buckets", "window"), 0),
    **dict.fromkeys(("global_every", "image_size", "patch_size"), 0),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "family": FAMILY_NAMES,
    "activation": tuple(sorted(ACTIVATIONS)),
    "norm": NORMS,
    "pooler_activation": ("tanh", "relu", "gelu"),
    "placement": PLACEMENTS,
    "positions": POSITIONS,
}


def _require_int(name: str, value: object, least: int, most: int) -> None:
    if not is_int(value, least, most):
        raise ConfigError(f"{name} must be an integer from {least} to {most}; got {value!r}.")
