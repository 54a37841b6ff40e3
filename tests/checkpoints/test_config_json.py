"""config.json: what it may hold, and what is refused."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.make_frozen import FROZEN, RANDOM

from jaxsmooth.activations import ACTIVATIONS
from jaxsmooth.bert.config import FAMILY_NAMES, EncoderConfig
from jaxsmooth.checkpoints.config_json import (
    ACTIVATION_NAMES,
    config_from_dict,
    config_from_file,
    config_to_dict,
    family_config,
)
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
    sizes=st.tuples(*(st.integers(1, 2**bits) for bits in (20, 10, 16, 20))),
    shape=st.tuples(st.integers(1, 2**5), st.integers(1, 2**5)),
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
        segments=data.draw(st.integers(0, 2**20)),
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


@pytest.mark.compatibility("loading", "hidden_act gelu_fast, gelu_accurate, gelu_python_tanh", "the tanh form", was=3)
@pytest.mark.parametrize("name", ["gelu_fast", "gelu_accurate", "gelu_python_tanh", "gelu_new", "gelu_pytorch_tanh"])
def test_the_tanh_form_of_gelu_has_five_names(name):
    config = config_from_dict(SMALL | {"hidden_act": name})
    assert config.activation == "gelu_tanh"
    assert config_to_dict(config)["hidden_act"] == name
    assert config_to_dict(dataclasses.replace(config, activation="relu"))["hidden_act"] == "relu"


@pytest.mark.compatibility(
    "loading", "an activation that the encoder lacks (gelu_10, quick_gelu, mish)", "named", was=0
)
@pytest.mark.parametrize("name", ["gelu_10", "quick_gelu", "mish", "relu6", "laplace", "GELU", ""])
def test_other_activations_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"hidden_act must be one of .*; got '{name}'"):
        config_from_dict(SMALL | {"hidden_act": name})


@pytest.mark.compatibility("loading", "position_embedding_type null", "absolute, as transformers has it", was=3)
def test_null_is_absence_where_a_key_holds_one_value_only():
    assert (
        config_from_dict(SMALL | {"position_embedding_type": None, "add_cross_attention": None}).positions == "learned"
    )


@pytest.mark.compatibility("loading", "is_decoder true (a causal BERT)", "causal attention", was=3)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "electra"])
def test_a_decoder_is_causal(family):
    config = config_from_dict(SMALL | {"model_type": family, "is_decoder": True})
    assert config.causal
    assert config_to_dict(config)["is_decoder"] is True
    assert not config_from_dict(SMALL | {"model_type": family}).causal


@pytest.mark.parametrize("family", ["albert", "mpnet"])
def test_no_decoder_is_made_where_transformers_has_none(family):
    assert not config_from_dict(SMALL | {"model_type": family, "is_decoder": True}).causal


@pytest.mark.compatibility("loading", "BERT's names of the sizes in a DistilBERT or a GPT-2", "read", was=3)
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("distilbert", {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_dim": 20}),
        ("gpt2", {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 9}),
    ],
)
def test_sizes_under_their_other_names_are_read(family, sizes):
    config = config_from_dict({"model_type": family, "vocab_size": 30, **sizes})
    assert (config.width, config.layers, config.heads) == (12, 3, 4)
    assert config.max_length == sizes.get("max_position_embeddings", 512)
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.compatibility(
    "saving", "a whole number where transformers' class has a float (eps 0)", "written 0.0", was=2
)
def test_floats_are_written_as_floats():
    written = config_to_dict(EncoderConfig(eps=0, std_init=1))
    assert [repr(written[key]) for key in ("layer_norm_eps", "initializer_range")] == ["0.0", "1.0"]
    assert repr(config_to_dict(config_from_dict(SMALL | {"layer_norm_eps": 1}))["layer_norm_eps"]) == "1.0"


KEPT = {
    "id2label": {"0": "no", "1": "yes", "2": "maybe"},
    "label2id": {"no": 0, "yes": 1, "maybe": 2},
    "problem_type": "multi_label_classification",
    "bos_token_id": 5,
    "eos_token_id": [6, 7],
    "cls_token_id": 8,
    "sep_token_id": 9,
    "pad_token_id": None,
    "attention_dropout": 0,
    "hidden_dropout_prob": 0.3,
    "classifier_dropout": 0.25,
    "finetuning_task": "mnli",
    "tie_word_embeddings": False,
    "chunk_size_feed_forward": 0,
    "my key": {"a": [1, 2.0, None], "b": "naïve"},
    "a number": 1e-7,
    "a whole number": 3.0,
    "infinite": float("inf"),
}


@pytest.mark.compatibility("saving", "id2label, label2id, problem_type, dropouts, ids of special tokens", "kept", was=1)
@pytest.mark.compatibility(
    "saving", "keys of config.json that nothing here knows", "kept, numbers with their type", was=1
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_encoder_does_not_read_is_kept(family):
    raw = {**config_to_dict(family_config(family, heads=12)), **KEPT}
    config = config_from_dict(raw)
    again = json.loads(json.dumps(config_to_dict(config)))
    assert json.dumps({key: again[key] for key in raw}) == json.dumps(raw)
    assert config_from_dict(again) == config
    assert hash(config) == hash(config_from_dict(again))
    # A changed field is written anew, what is no field's is kept.
    deeper = config_to_dict(dataclasses.replace(config, layers=3))
    assert config_from_dict(deeper).layers == 3
    assert all(deeper[key] == KEPT[key] for key in KEPT if key != "pad_token_id")


def test_who_wrote_a_file_and_its_dtype_are_not_kept():
    raw = SMALL | {"transformers_version": "4.6", "torch_dtype": "float16", "dtype": "float16", "architectures": ["X"]}
    written = config_to_dict(config_from_dict(raw))
    assert not {"transformers_version", "torch_dtype", "dtype"} & written.keys()
    assert written["architectures"] == ["BertModel"]


@pytest.mark.compatibility("loading", "NaN, Infinity and a key twice in config.json", "as Python reads them", was=0)
@pytest.mark.compatibility("loading", "config.json with a comment, a byte order mark, UTF-16", "refused by name", was=0)
def test_json_as_others_write_it(tmp_path):
    path = tmp_path / "config.json"
    text = json.dumps(SMALL)
    path.write_text(text[:-1] + ', "x": NaN, "y": -Infinity, "hidden_size": 24}')
    config = config_from_file(path)
    assert config.width == 24
    assert repr(config_to_dict(config)["x"]) == "nan"
    for content in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), b"// BERT\n" + text.encode()):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"config\.json is not readable JSON"):
            config_from_file(path)


@pytest.mark.parity
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_what_is_kept(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"image_size": 32, "patch_size": 16} if family_config(family).is_vision else {}
    kept = {key: value for key, value in KEPT.items() if key not in ("attention_dropout", "infinite")}
    raw = {**config_to_dict(family_config(family, width=24, heads=2, **small)), **kept}
    for place, content in (("theirs", raw), ("ours", config_to_dict(config_from_dict(raw)))):
        (tmp_path / place).mkdir()
        (tmp_path / place / "config.json").write_text(json.dumps(content))
    theirs, ours = (transformers.AutoConfig.from_pretrained(tmp_path / place) for place in ("theirs", "ours"))
    theirs, written = ({**c.to_dict(), "_name_or_path": ""} for c in (theirs, ours))
    assert written == theirs
    assert (ours.num_labels, ours.problem_type) == (3, "multi_label_classification")


@pytest.mark.parity
def test_the_names_of_activations_are_transformers():
    torch, activations = pytest.importorskip("torch"), pytest.importorskip("transformers.activations")
    x = np.linspace(-8, 8, 10_001)
    for theirs, ours in ACTIVATION_NAMES.items():
        expected = activations.ACT2FN[theirs](torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(ACTIVATIONS[ours].function(jnp.asarray(x)), expected, atol=1e-12, err_msg=theirs)


@pytest.mark.compatibility("loading", "pad_token_id -1, for none", "as null, and kept on a save", was=3)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_minus_one_is_no_padding_token(family):
    hf = config_to_dict(family_config(family)) | {"pad_token_id": -1}
    assert config_from_dict(hf).pad_token == family_config(family).pad_token
    assert config_to_dict(config_from_dict(hf))["pad_token_id"] == -1
    with pytest.raises(ConfigError, match="pad_token_id"):
        config_from_dict(config_to_dict(family_config("roberta")) | {"pad_token_id": -1})
