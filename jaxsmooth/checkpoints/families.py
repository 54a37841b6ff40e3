"""How each family of Hugging Face models writes its `config.json`: one row of a table per `model_type`.

A row lists which keys hold our fields, which fields the family fixes, what an absent key means (the default of that
family's configuration class in transformers 5.24), and which keys may hold one value only. The two functions of a
row translate, in either direction, what is not a plain renaming; `config_json` applies the table.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError, is_int

Values = dict[str, Any]

POSITION_TABLE = 512  # rows of the position table where max_position_embeddings is absent

_BERT_KEYS = {
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
}
# Of the families whose classes can be decoders; the others' classes read neither key.
_DECODER = {"causal": "is_decoder"}
_ABSOLUTE = {"position_embedding_type": "absolute"}


def _without(keys: Mapping[str, str], *dropped: str) -> dict[str, str]:
    return {ours: theirs for ours, theirs in keys.items() if ours not in dropped}


def _read_nothing(hf: Mapping[str, Any], values: Values) -> Values:
    return {}


def _write_nothing(config: Any) -> Values:
    return {}


class Family(NamedTuple):
    """One `model_type`.

    Attributes:
      architecture: transformers' class of the bare encoder.
      keys: our field -> the key that holds it.
      activation: the key that holds the activation's name, and its value where the key is absent.
      settings: our fields that every model of the family has.
      defaults: our fields whose keys may be absent, where BERT's default does not hold.
      must: keys that hold one value only, where they are there at all and not null.
      aliases: other names of keys, as transformers' `attribute_map` has them.
      read: (config.json, our fields so far) -> our fields that take more than renaming.
      write: our config -> the keys that take more than renaming.
    """

    architecture: str
    keys: Mapping[str, str] = {**_BERT_KEYS, **_DECODER}
    activation: tuple[str, str] = ("hidden_act", "gelu")
    settings: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}
    must: Mapping[str, Any] = {**_ABSOLUTE, "add_cross_attention": False}
    aliases: Mapping[str, str] = {}
    read: Callable[[Mapping[str, Any], Values], Values] = _read_nothing
    write: Callable[[Any], Values] = _write_nothing


def _read_offset(hf: Mapping[str, Any], values: Values) -> Values:
    """RoBERTa's positions begin after the padding's row, so a sentence has that many rows fewer."""
    pad, rows = values["pad_token"], hf.get("max_position_embeddings", POSITION_TABLE)
    if not (is_int(pad) and is_int(rows)):
        return {"max_length": rows}  # refused with all other fields
    return {"position_offset": pad + 1, "max_length": rows - pad - 1}


def _read_mpnet(hf: Mapping[str, Any], values: Values) -> Values:
    """transformers counts MPNet's positions from the id 1, whatever pad_token_id is."""
    return _read_offset(hf, {**values, "pad_token": 1})


def _write_offset(config: Any) -> Values:
    return {"max_position_embeddings": config.max_length + config.position_offset}


def _read_electra(hf: Mapping[str, Any], values: Values) -> Values:
    """ELECTRA projects its embedding only where the widths differ."""
    width = hf.get("embedding_size", 128)
    return {"embedding_width": 0 if width == values.get("width") else width}


def _write_electra(config: Any) -> Values:
    return {"embedding_size": config.table_width}


def _read_modernbert(hf: Mapping[str, Any], values: Values) -> Values:
    span = hf.get("local_attention", 128)
    if not is_int(span) or span < 2:
        raise ConfigError(f"local_attention must be an integer of at least 2; got {span!r}.")
    bases = {"full_attention": hf.get("global_rope_theta"), "sliding_attention": hf.get("local_rope_theta")}
    given = hf.get("rope_parameters") or {}
    for kind in bases:
        rope = given.get(kind) if isinstance(given, Mapping) else given
        if not isinstance(rope, Mapping | None) or (rope or {}).get("rope_type", "default") != "default":
            raise ConfigError(f"rope_parameters must be of rope_type 'default' for {kind}; got {rope!r}.")
        bases[kind] = (rope or {}).get("rope_theta", bases[kind])
    whole, local = bases.values()
    return {
        "window": span // 2,
        "global_every": _global_every(hf, values.get("layers")),
        "rotary_base": 160_000.0 if whole is None else whole,
        "rotary_base_local": 10_000.0 if local is None else local,
    }


def _global_every(hf: Mapping[str, Any], layers: Any) -> int:
    """k of "every k-th layer, from the first, is global", which `layer_types`, where it is there, must agree with."""
    every, types = hf.get("global_attn_every_n_layers"), hf.get("layer_types")
    if every is not None and (not is_int(every) or every < 0):
        raise ConfigError(f"global_attn_every_n_layers must be an integer >= 0; got {every!r}.")
    if types is None:
        return 3 if every is None else every
    if not isinstance(types, list) or len(types) != layers or not types:
        raise ConfigError(f"layer_types must list {layers} layers; got {types!r}.")
    if every is None:
        whole = [layer for layer, kind in enumerate(types) if kind == "full_attention"]
        every = 0 if not whole else (whole[1] if len(whole) > 1 else len(types))
    if types != layer_types(every, len(types)):
        raise ConfigError(
            "layer_types must have full_attention at every k-th layer from the first and sliding_attention "
            f"elsewhere; got {types!r}, which this encoder does not have."
        )
    return every


def layer_types(every: int, layers: int) -> list[str]:
    """ModernBERT's kinds of attention, layer by layer.

    >>> layer_types(2, 3)
    ['full_attention', 'sliding_attention', 'full_attention']
    """
    return ["sliding_attention" if not every or layer % every else "full_attention" for layer in range(layers)]


def _write_modernbert(config: Any) -> Values:
    bases = {"full_attention": config.rotary_base, "sliding_attention": config.rotary_base_local}
    return {
        "local_attention": max(2, 2 * config.window),
        # As transformers 5 writes it, and as versions before it did.
        "layer_types": layer_types(config.global_every, config.layers),
        "global_attn_every_n_layers": config.global_every,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        "global_rope_theta": config.rotary_base,
        "local_rope_theta": config.rotary_base_local,
    }


def _read_gpt2(hf: Mapping[str, Any], values: Values) -> Values:
    """An absent or null n_inner means four times the width."""
    inner, width = hf.get("n_inner"), values.get("width")
    return {"mlp_width": 4 * width if inner is None and is_int(width) else inner}


def _write_gpt2(config: Any) -> Values:
    return {"n_inner": config.mlp_width}


def _read_vision(hf: Mapping[str, Any], values: Values) -> Values:
    """A vision encoder always reads all of its patches."""
    width, size, patch = hf.get("pooler_output_size"), values.get("image_size"), values.get("patch_size")
    if width not in (None, values.get("width")):
        raise ConfigError(f"pooler_output_size must be hidden_size; got {width!r}, which this encoder does not have.")
    if not (is_int(size) and is_int(patch, 1)):
        raise ConfigError(f"image_size and patch_size must be integers; got {size!r} and {patch!r}.")
    return {"max_length": values["class_tokens"] + (size // patch) ** 2}


_ROBERTA = Family(
    "RobertaModel",
    keys={**_without(_BERT_KEYS, "max_length"), **_DECODER},
    defaults={"pad_token": 1, "position_offset": 2, "max_length": 510},
    read=_read_offset,
    write=_write_offset,
)
_VIT = Family(
    "ViTModel",
    keys={
        **{ours: _BERT_KEYS[ours] for ours in ("width", "layers", "heads", "mlp_width", "eps", "std_init")},
        "image_size": "image_size",
        "patch_size": "patch_size",
        "channels": "num_channels",
    },
    settings={
        "vocab": 1,
        "segments": 0,
        "pad_token": 0,
        "class_tokens": 1,
        "placement": "pre",
        "embedding_norm": False,
        "final_norm": True,
    },
    defaults={"image_size": 224, "patch_size": 16, "max_length": 197},
    must={"qkv_bias": True, "pooler_act": "tanh"},
    read=_read_vision,
)

FAMILIES: dict[str, Family] = {
    "bert": Family("BertModel"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA._replace(architecture="XLMRobertaModel"),
    "camembert": _ROBERTA._replace(architecture="CamembertModel"),
    "albert": Family(
        "AlbertModel",
        keys={**_BERT_KEYS, "embedding_width": "embedding_size"},
        activation=("hidden_act", "gelu_new"),
        settings={"shared_layers": True},
        defaults={"embedding_width": 128},
        must={**_ABSOLUTE, "num_hidden_groups": 1, "inner_group_num": 1},
    ),
    "distilbert": Family(
        "DistilBertModel",
        keys={
            **{ours: _BERT_KEYS[ours] for ours in ("vocab", "max_length", "std_init", "pad_token")},
            "width": "dim",
            "layers": "n_layers",
            "heads": "n_heads",
            "mlp_width": "hidden_dim",
        },
        activation=("activation", "gelu"),
        settings={"segments": 0, "pooler_activation": "relu"},
        must={},
        aliases={"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
    ),
    "electra": Family(
        "ElectraModel",
        settings={"pooler_activation": "gelu"},
        defaults={"embedding_width": 128},
        read=_read_electra,
        write=_write_electra,
    ),
    "mpnet": Family(
        "MPNetModel",
        keys=_without(_BERT_KEYS, "max_length", "segments"),
        settings={"segments": 0, "relative_buckets": 32},
        defaults={"pad_token": 1, "position_offset": 2, "max_length": 510},
        # The published code sorts distances into 32 buckets whatever the configuration says.
        must={"relative_attention_num_buckets": 32},
        read=_read_mpnet,
        write=_write_offset,
    ),
    "modernbert": Family(
        "ModernBertModel",
        keys={
            **_without(_BERT_KEYS, "segments", "eps"),
            "eps": "norm_eps",
            "norm_bias": "norm_bias",
            "attn_bias": "attention_bias",
            "mlp_bias": "mlp_bias",
        },
        activation=("hidden_activation", "gelu"),
        settings={
            "placement": "pre",
            "final_norm": True,
            "first_norm": False,
            "positions": "rotary",
            "gated": True,
            "segments": 0,
        },
        defaults={
            "max_length": 8192,
            "eps": 1e-5,
            "norm_bias": False,
            "attn_bias": False,
            "mlp_bias": False,
            "window": 64,
            "global_every": 3,
            "rotary_base": 160_000.0,
            "pad_token": 50283,
            "vocab": 50368,
        },
        must={},
        read=_read_modernbert,
        write=_write_modernbert,
    ),
    "vit": _VIT,
    "deit": _VIT._replace(
        architecture="DeiTModel",
        settings={**_VIT.settings, "class_tokens": 2},
        defaults={**_VIT.defaults, "max_length": 198},
    ),
    "gpt2": Family(
        "GPT2Model",
        keys={
            "vocab": "vocab_size",
            "width": "n_embd",
            "layers": "n_layer",
            "heads": "n_head",
            "max_length": "n_positions",
            "eps": "layer_norm_epsilon",
            "std_init": "initializer_range",
            "pad_token": "pad_token_id",
        },
        activation=("activation_function", "gelu_new"),
        settings={"placement": "pre", "embedding_norm": False, "final_norm": True, "causal": True, "segments": 0},
        defaults={"max_length": 1024, "eps": 1e-5},
        must={"add_cross_attention": False, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        aliases={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "max_position_embeddings": "n_positions",
        },
        read=_read_gpt2,
        write=_write_gpt2,
    ),
}
