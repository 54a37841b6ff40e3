"""config.json: what it may hold, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.make_frozen import FROZEN, RANDOM

from jaxsmooth.bert.config import FAMILY_NAMES, EncoderConfig
from jaxsmooth.checkpoints.config_json import ACTIVATION_NAMES, config_from_dict, config_from_file, config_to_dict
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.errors import ConfigError

SMALL = {
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
}


def test_every_family_has_its_tables():
    assert tuple(FAMILIES) == tuple(NAMES) == FAMILY_NAMES


def test_berts_defaults_fill_what_is_left_out():
    config = config_from_dict(SMALL)
    assert config == EncoderConfig(vocab=30, width=12, layers=3, heads=4, mlp_width=20)
    assert (config.max_length, config.segments, config.activation, config.eps) == (512, 2, "gelu", 1e-12)
    assert (config.std_init, config.pad_token, config.head_width) == (0.02, 0, 3)


@pytest.mark.parametrize("name", RANDOM)
def test_configurations_written_by_transformers_are_read(name):
    written = json.loads((FROZEN / name / "config.json").read_text())
    config = config_from_file(FROZEN / name / "config.json")
    assert config.activation == ACTIVATION_NAMES[written["hidden_act"]]
    again = config_to_dict(config)
    shared = (set(again) & set(written)) - {"hidden_act"}
    assert len(shared) >= 8
    assert {key: again[key] for key in shared} == {key: written[key] for key in shared}


@given(
    sizes=st.tuples(*[st.integers(1, 2**31 - 1)] * 4),
    shape=st.tuples(st.integers(1, 2**15), st.integers(1, 2**15)),
    numbers=st.tuples(*[st.floats(0, 1e300)] * 2),
    activation=st.sampled_from(sorted(set(ACTIVATION_NAMES.values()))),
    data=st.data(),
)
def test_writing_inverts_reading(sizes, shape, numbers, activation, data):
    vocab, layers, mlp_width, max_length = sizes
    heads, head_width = shape
    config = EncoderConfig(
        vocab=vocab,
        width=heads * head_width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width,
        max_length=max_length,
        segments=data.draw(st.integers(0, 2**31 - 1)),
        activation=activation,
        eps=numbers[0],
        std_init=numbers[1],
        pad_token=data.draw(st.integers(0, vocab - 1)),
    )
    assert config.head_width == head_width
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


REFUSED = [
    ({"model_type": "t5"}, r"model_type must be one of .*'bert'.*; got 't5'"),
    ({"model_type": None}, "model_type .* got None"),
    ({"model_type": ["bert"]}, "model_type .* got"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute'; got 'relative_key'"),
    ({"position_embedding_type": "alibi"}, "position_embedding_type must be 'absolute'; got 'alibi'"),
    ({"is_decoder": "yes"}, r"causal \(is_decoder in config.json\) must be true or false; got 'yes'"),
    ({"add_cross_attention": True}, "add_cross_attention must be False"),
    ({"hidden_act": "mish"}, "hidden_act must be one of .*gelu.*; got 'mish'"),
    ({"hidden_act": ["gelu"]}, "hidden_act must be one of"),
    (
        {"num_attention_heads": 5},
        r"hidden_size .* multiple of heads \(num_attention_heads in config.json\); got width=12, heads=5",
    ),
    ({"num_hidden_layers": 0}, r"layers \(num_hidden_layers in config.json\) must be an integer from 1 .*; got 0"),
    ({"num_hidden_layers": True}, "layers .* got True"),
    ({"num_hidden_layers": 3.0}, "layers .* got 3.0"),
    ({"hidden_size": "12"}, "width .* got '12'"),
    ({"vocab_size": 2**31}, "vocab .* got 2147483648"),
    ({"intermediate_size": -20}, "mlp_width .* got -20"),
    ({"max_position_embeddings": None}, "max_length .* got None"),
    ({"type_vocab_size": -1}, "segments .* from 0 .* got -1"),
    ({"pad_token_id": 30}, "pad_token .* from 0 to 29; got 30"),
    ({"layer_norm_eps": -1e-12}, r"eps \(layer_norm_eps in config.json\) must be a finite number >= 0; got -1e-12"),
    ({"layer_norm_eps": float("nan")}, "eps .* got nan"),
    ({"layer_norm_eps": "1e-12"}, "eps .* got '1e-12'"),
    ({"layer_norm_eps": 10**400}, "eps .* must be a finite number"),
    ({"initializer_range": float("inf")}, "std_init .* got inf"),
    ({"initializer_range": False}, "std_init .* got False"),
    ({"jaxsmooth_note": 3}, r"note \(jaxsmooth_note in config.json\) must be a string; got 3"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[str(change)[:50] for change, _ in REFUSED])
def test_what_the_encoder_cannot_be_is_refused(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(SMALL | change)
    (tmp_path / "config.json").write_text(json.dumps(SMALL | change))
    with pytest.raises(ConfigError, match=r"config\.json: "):
        config_from_file(tmp_path / "config.json")


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
)
def test_sizes_are_never_guessed(key):
    with pytest.raises(ConfigError, match=f"config.json lacks '{key}'"):
        config_from_dict({name: value for name, value in SMALL.items() if name != key})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"model_type": "bert"', b"\xff\xfe", b"[" * 100_000, b'{"vocab_size": ' + b"9" * 5000 + b"}"],
    ids=["empty", "open", "cut", "latin", "deep", "long number"],
)
def test_a_file_that_is_not_json_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json is not readable JSON"):
        config_from_file(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["[]", "null", '"bert"', "3"])
def test_json_that_is_no_object_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="must hold one JSON object; got"):
        config_from_file(str(tmp_path / "config.json"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        config_from_file(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json is not readable"):
        config_from_file(tmp_path / "config.json")
