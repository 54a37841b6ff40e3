"""Sizes that no model has are refused before memory is asked for, from files and from Python."""

import pytest
from support.limits import limits
from support.model_folders import config, folder, tensors

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.errors import ConfigError, JaxsmoothError

HEADS = {
    "bert": "BertForMaskedLM",
    "albert": "AlbertForMaskedLM",
    "roberta": "RobertaForSequenceClassification",
    "modernbert": "ModernBertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "vit": "ViTForImageClassification",
}
SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "vocab": "vocab_size",
    "max_length": "max_position_embeddings",
    "mlp_width": "intermediate_size",
    "heads": "num_attention_heads",
}
OTHERS = {
    "gpt2": {
        "layers": "n_layer",
        "width": "n_embd",
        "max_length": "n_positions",
        "mlp_width": "n_inner",
        "heads": "n_head",
    },
    "vit": {"vocab": "image_size", "max_length": "num_channels"},
}
ABSURD = (10**9, 10**12, 10**15, 2**31 - 1, 10**400, -1, 0, 1.5, 6.0, "6", True, None, [6], float("nan"))


@pytest.mark.compatibility("size", "1e9 layers in config.json, ALBERT's shared ones too", "refused at once", was=2)
@pytest.mark.compatibility("size", "widths, lengths and vocabularies of 1e9 to 1e15", "refused at once", was=0)
@pytest.mark.compatibility("size", "negative, fractional, quoted or boolean sizes", "refused", was=0)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("family", HEADS)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(family, name, tmp_path):
    key = OTHERS.get(family, {}).get(name, SIZES[name])
    for value in ABSURD:
        hf = config(family, architectures=[HEADS[family]]) | {key: value}
        if (key, value) == ("n_inner", None):
            continue  # four times the width
        folder(tmp_path, tensors(family), hf)
        for load in (jaxsmooth.load, jaxsmooth.load_with_head):
            with limits(), pytest.raises(JaxsmoothError):
                load(tmp_path)


@pytest.mark.compatibility("size", "heads that do not divide the width", "refused", was=0)
@pytest.mark.parametrize("heads", [4, 5, 7, 12])
def test_heads_must_divide_the_width(heads, tmp_path):
    with pytest.raises(ConfigError, match=r"width .* must be a multiple of heads"):
        jaxsmooth.load(folder(tmp_path, tensors(), config(num_attention_heads=heads)))


@pytest.mark.compatibility("size", "absurd sizes given to EncoderConfig", "refused", was=2)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 10**9}, "layers must be an integer from 1 to 65536; got 1000000000"),
        ({"layers": 10**9, "shared_layers": True}, "layers must be an integer from 1 to 65536"),
        ({"width": 10**9, "heads": 1}, "at most 1,099,511,627,776 parameters; got"),
        ({"vocab": 2**31 - 1}, "at most 1,099,511,627,776 parameters; got 1,649,"),
        ({"mlp_width": 2**31 - 1}, "at most .* parameters"),
        ({"max_length": 2**31 - 1}, "max_length must be an integer from 1 to 16777216"),
        ({"width": 10**15}, "width must be an integer from 1 to 2147483647"),
    ],
)
def test_sizes_given_to_a_configuration_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**fields)


def test_large_models_are_not_absurd():
    EncoderConfig(vocab=250_002, width=4096, layers=48, heads=32, mlp_width=16384)  # XLM-R XXL and a half
    EncoderConfig(layers=10_000, width=768)
