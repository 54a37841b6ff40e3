"""Which tensor of a Hugging Face checkpoint holds which array of the encoder: one table of names per family."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..bert.config import EncoderConfig

OWN = "jaxsmooth."
"""Before the path of an array that the family's table has no name for, as the extra norms of a sandwich BERT."""


class Entry(NamedTuple):
    """Where one array of `Encoder` lives in a checkpoint.

    An array is a stack of members, one tensor each; a tensor may hold several arrays side by side.

    Attributes:
      path: field names from `Encoder` down, as "blocks.attn.query.kernel".
      tensor: the tensor's name; "{}" is replaced by the member.
      transposed: torch stores linear maps output axis first.
      members: what "{}" runs over in the array's leading axis: None for the layers, else names.
      part, parts: the array is this one of so many equal parts of the tensor, along its output axis.
      ones: axes of length 1 that the tensor has in front.
      patch: the input axis is stored as three: channels, rows and columns of a patch.
    """

    path: str
    tensor: str
    transposed: bool = False
    members: tuple[str, ...] | None = None
    part: int = 0
    parts: int = 1
    ones: int = 0
    patch: bool = False

    @property
    def is_stacked(self) -> bool:
        """Whether the array has a leading axis of members."""
        return "{}" in self.tensor

    def names(self, config: EncoderConfig) -> list[str | None]:
        """The tensor of every member; None for a member that checkpoints do not hold."""
        if not self.is_stacked:
            return [self.tensor]
        layers = 1 if config.shared_layers else config.layers
        members: Sequence[object] = range(layers) if self.members is None else self.members
        unused = not config.first_norm and self.path.startswith("blocks.norm_attn.")
        return [None if unused and member == 0 else self.tensor.format(member) for member in members]

    def flat_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One member of an array of `shape`, heads joined: inputs and outputs, or outputs alone."""
        if self.tensor.startswith(OWN):
            return shape
        shape = shape[1:] if self.is_stacked else shape
        if len(shape) == 3:
            return (shape[0] * shape[1], shape[2]) if ".output." in self.path else (shape[0], shape[1] * shape[2])
        return (shape[0] * shape[1],) if self.path.endswith(".bias") and len(shape) == 2 else shape

    def stored_shape(self, shape: tuple[int, ...], config: EncoderConfig) -> tuple[int, ...]:
        """The tensor's shape, for an array of `shape`."""
        flat = self.flat_shape(shape)
        flat = (*flat[:-1], flat[-1] * self.parts)
        flat = flat[::-1] if self.transposed else flat
        if self.patch:
            flat = (flat[0], config.channels, config.patch_size, config.patch_size)
        return (1,) * self.ones + flat


class Names(NamedTuple):
    """The names of one family.

    Attributes:
      entries: every array of the encoder and the tensor that holds it.
      prefix: what models with a head put before an encoder's names.
      ignored: shell patterns of the names that are not the encoder's: heads, and buffers.
    """

    entries: tuple[Entry, ...]
    prefix: str
    ignored: tuple[str, ...]


def _affine(path: str, tensor: str, *, part: int = 0, parts: int = 1, patch: bool = False) -> list[Entry]:
    kernel = Entry(f"{path}.kernel", f"{tensor}.weight", transposed=True, part=part, parts=parts, patch=patch)
    return [kernel, Entry(f"{path}.bias", f"{tensor}.bias", part=part, parts=parts)]


def _norm(path: str, tensor: str) -> list[Entry]:
    return [Entry(f"{path}.scale", f"{tensor}.weight"), Entry(f"{path}.bias", f"{tensor}.bias")]


def _tables(**tensors: str) -> list[Entry]:
    return [Entry(f"embeddings.{table}", f"embeddings.{tensor}.weight") for table, tensor in tensors.items()]


_BERT_TABLES = [
    *_tables(word="word_embeddings", position="position_embeddings", segment="token_type_embeddings"),
    *_norm("embeddings.norm", "embeddings.LayerNorm"),
]
_POOLER = _affine("pooler", "pooler.dense")


def _linear_maps(prefix: str, **tensors: str) -> Iterator[Entry]:
    """The linear maps of a block: query, key, value and output of attention, up and down."""
    for name, tensor in tensors.items():
        path = f"blocks.{name}" if name in ("up", "down") else f"blocks.attn.{name}"
        yield from _affine(path, prefix + tensor)


def _bert_blocks(layer: str = "encoder.layer.{}.") -> list[Entry]:
    return [
        *_linear_maps(f"{layer}attention.self.", query="query", key="key", value="value"),
        *_linear_maps(layer, output="attention.output.dense", up="intermediate.dense", down="output.dense"),
        *_norm("blocks.norm_attn", f"{layer}attention.output.LayerNorm"),
        *_norm("blocks.norm_mlp", f"{layer}output.LayerNorm"),
    ]


_ALBERT_LAYER = "encoder.albert_layer_groups.0.albert_layers.{}."  # one member, 0: all layers share it
_ALBERT = (
    *_BERT_TABLES,
    *_affine("embeddings.projection", "encoder.embedding_hidden_mapping_in"),
    *(
        entry._replace(members=("0",))
        for entry in (
            *_linear_maps(f"{_ALBERT_LAYER}attention.", query="query", key="key", value="value", output="dense"),
            *_norm("blocks.norm_attn", f"{_ALBERT_LAYER}attention.LayerNorm"),
            *_linear_maps(_ALBERT_LAYER, up="ffn", down="ffn_output"),
            *_norm("blocks.norm_mlp", f"{_ALBERT_LAYER}full_layer_layer_norm"),
        )
    ),
    *_affine("pooler", "pooler"),
)
_DISTILBERT_LAYER = "transformer.layer.{}."
_DISTILBERT = (
    *_tables(word="word_embeddings", position="position_embeddings"),
    *_norm("embeddings.norm", "embeddings.LayerNorm"),
    *_linear_maps(f"{_DISTILBERT_LAYER}attention.", query="q_lin", key="k_lin", value="v_lin", output="out_lin"),
    *_norm("blocks.norm_attn", f"{_DISTILBERT_LAYER}sa_layer_norm"),
    *_linear_maps(f"{_DISTILBERT_LAYER}ffn.", up="lin1", down="lin2"),
    *_norm("blocks.norm_mlp", f"{_DISTILBERT_LAYER}output_layer_norm"),
)
_MPNET_LAYER = "encoder.layer.{}."
_MPNET = (
    *_tables(word="word_embeddings", position="position_embeddings"),
    *_norm("embeddings.norm", "embeddings.LayerNorm"),
    *_linear_maps(f"{_MPNET_LAYER}attention.attn.", query="q", key="k", value="v", output="o"),
    *_norm("blocks.norm_attn", f"{_MPNET_LAYER}attention.LayerNorm"),
    *_linear_maps(_MPNET_LAYER, up="intermediate.dense", down="output.dense"),
    *_norm("blocks.norm_mlp", f"{_MPNET_LAYER}output.LayerNorm"),
    Entry("relative", "encoder.relative_attention_bias.weight"),
    *_POOLER,
)
_QKV = ("query", "key", "value")
_MODERNBERT = (
    *_tables(word="tok_embeddings"),
    *_norm("embeddings.norm", "embeddings.norm"),
    *_norm("blocks.norm_attn", "layers.{}.attn_norm"),
    *(e for k, name in enumerate(_QKV) for e in _affine(f"blocks.attn.{name}", "layers.{}.attn.Wqkv", part=k, parts=3)),
    *_linear_maps("layers.{}.attn.", output="Wo"),
    *_norm("blocks.norm_mlp", "layers.{}.mlp_norm"),
    *(
        e
        for k, name in enumerate(("up", "gate"))
        for e in _affine(f"blocks.{name}", "layers.{}.mlp.Wi", part=k, parts=2)
    ),
    *_linear_maps("layers.{}.mlp.", down="Wo"),
    *_norm("final_norm", "final_norm"),
)
_VIT_LAYER = "encoder.layer.{}."


def _vit(*classes: str) -> tuple[Entry, ...]:
    return (
        Entry("embeddings.classes", "embeddings.{}_token", members=classes, ones=2),
        Entry("embeddings.position", "embeddings.position_embeddings", ones=1),
        *_affine("embeddings.patch", "embeddings.patch_embeddings.projection", patch=True),
        *_norm("blocks.norm_attn", f"{_VIT_LAYER}layernorm_before"),
        *_linear_maps(f"{_VIT_LAYER}attention.attention.", query="query", key="key", value="value"),
        *_linear_maps(_VIT_LAYER, output="attention.output.dense", up="intermediate.dense", down="output.dense"),
        *_norm("blocks.norm_mlp", f"{_VIT_LAYER}layernorm_after"),
        *_norm("final_norm", "layernorm"),
        *_POOLER,
    )


def _conv1d(entries: list[Entry]) -> list[Entry]:
    """GPT-2's linear maps are stored input axis first, as ours are."""
    return [entry._replace(transposed=False) for entry in entries]


_GPT2 = (
    Entry("embeddings.word", "wte.weight"),
    Entry("embeddings.position", "wpe.weight"),
    *_norm("blocks.norm_attn", "h.{}.ln_1"),
    *(
        entry
        for k, name in enumerate(_QKV)
        for entry in _conv1d(_affine(f"blocks.attn.{name}", "h.{}.attn.c_attn", part=k, parts=3))
    ),
    *_conv1d(list(_linear_maps("h.{}.", output="attn.c_proj"))),
    *_norm("blocks.norm_mlp", "h.{}.ln_2"),
    *_conv1d(list(_linear_maps("h.{}.mlp.", up="c_fc", down="c_proj"))),
    *_norm("final_norm", "ln_f"),
)

_HEADS = ("cls.*", "lm_head.*", "classifier.*", "qa_outputs.*")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_BERT = Names((*_BERT_TABLES, *_bert_blocks(), *_POOLER), "bert.", (*_BUFFERS, *_HEADS))
NAMES: dict[str, Names] = {
    "bert": _BERT,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), _BERT._replace(prefix="roberta.")),
    "albert": Names(_ALBERT, "albert.", (*_BUFFERS, *_HEADS, "predictions.*", "sop_classifier.*")),
    "distilbert": Names(
        _DISTILBERT,
        "distilbert.",
        (*_BUFFERS, *_HEADS, "pre_classifier.*", "vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
    ),
    "electra": Names(
        (*_BERT_TABLES, *_affine("embeddings.projection", "embeddings_project"), *_bert_blocks()),
        "electra.",
        (*_BUFFERS, *_HEADS, "generator_*", "discriminator_predictions.*", "sequence_summary.*"),
    ),
    "mpnet": Names(_MPNET, "mpnet.", (*_BUFFERS, *_HEADS)),
    "modernbert": Names(_MODERNBERT, "model.", (*_HEADS, "head.*", "decoder.*")),
    "vit": Names(_vit("cls"), "vit.", (*_HEADS, "decoder.*", "embeddings.mask_token")),
    "deit": Names(
        _vit("cls", "distillation"),
        "deit.",
        (*_HEADS, "decoder.*", "embeddings.mask_token", "cls_classifier.*", "distillation_classifier.*"),
    ),
    "gpt2": Names(
        _GPT2,
        "transformer.",
        # GPT-2's attention keeps its causal mask among the weights.
        (*_HEADS, "score.*", "multiple_choice_head.*", "h.*.attn.bias", "h.*.attn.masked_bias"),
    ),
}
"""The tables of every family of `checkpoints.families`."""


def entries_of(config: EncoderConfig, paths: Sequence[str]) -> list[Entry]:
    """The rows for the arrays that an encoder has, those without a row under our own names."""
    known = {entry.path for entry in NAMES[config.family].entries}
    named = [entry for entry in NAMES[config.family].entries if entry.path in paths]
    return named + [Entry(path, OWN + path) for path in paths if path not in known]
