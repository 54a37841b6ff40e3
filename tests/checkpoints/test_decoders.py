"""A language head's decoder beside the word table it is tied to: which of the two decodes, in every family.

transformers 5.24 was asked, with different numbers in both: the stored decoder decodes, whatever
`tie_word_embeddings` says, and of two biases the decoder's own is added.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from support.checkpoint import assert_same_bits, rewrite, set_config
from support.model_folders import config, folder, small, tensors

import jaxsmooth
from jaxsmooth.bert.heads import apply_head
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.head_names import HEADS
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.checkpoints.tied import word_table
from jaxsmooth.errors import CheckpointError, ConfigError

DECODING = [family for family, heads in HEADS.items() if {"masked_lm", "causal_lm"} & set(heads.heads)]
MASK = jnp.ones((1, 3), bool)


def names_of(family):
    kind = "causal_lm" if family == "gpt2" else "masked_lm"
    return kind, HEADS[family].heads[kind]


def write(place, family, *, decoder=True, own_bias=True, beside=True, tie=True):
    """A model with a tied head, and beside it another decoder and other biases; returns what was added."""
    kind, names = names_of(family)
    table, random, extra = small(family).embeddings.word, np.random.default_rng(1), {}
    head = {f"{names.dense}.weight": (table.shape[1], 6), f"{names.norm}.weight": table.shape[1:]}
    if family != "modernbert":
        head |= {f"{names.dense}.bias": table.shape[1:], f"{names.norm}.bias": table.shape[1:]}
    stored = {name: random.standard_normal(shape) for name, shape in head.items() if kind == "masked_lm"}
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    stored |= {NAMES[family].prefix + name: array for name, array in tensors(family).items()}
    if decoder:
        extra[f"{names.out}.weight"] = random.standard_normal(table.shape).astype(np.float32)
    if own_bias and family != "gpt2":  # whose decoder has no bias
        extra[f"{names.out}.bias"] = random.standard_normal(9).astype(np.float32)
    if names.bias:
        extra[names.bias] = random.standard_normal(9).astype(np.float32)
    stored |= {name: array for name, array in extra.items() if beside or name != names.bias}
    stem = FAMILIES[family].architecture.removesuffix("Model")
    folder(place, stored, config(family, architectures=[stem + names.classes[0]], tie_word_embeddings=tie))
    return extra


@pytest.mark.compatibility("rule", "a decoder stored beside the word table, and different", "it decodes", was=1)
@pytest.mark.compatibility("rule", "a decoder's bias stored beside the head's, and different", "it is added", was=1)
@pytest.mark.parametrize("tie", [True, False, None])
@pytest.mark.parametrize("family", DECODING)
def test_the_stored_decoder_decodes(family, tie, tmp_path):
    extra = write(tmp_path, family, tie=tie)
    _, names = names_of(family)
    _, head, _ = jaxsmooth.load_with_head(tmp_path)
    np.testing.assert_array_equal(head.out.kernel, extra[f"{names.out}.weight"].T)
    if family == "gpt2":
        assert head.out.bias is None
    else:
        np.testing.assert_array_equal(head.out.bias, extra[f"{names.out}.bias"])


@pytest.mark.compatibility("rule", "a decoder stored beside the word table, and equal", "tied", was=0)
@pytest.mark.parametrize("family", ["bert", "electra", "gpt2"])
def test_an_equal_decoder_stays_tied(family, tmp_path):
    write(tmp_path, family)
    _, names = names_of(family)
    table = tensors(family)["wte.weight" if family == "gpt2" else "embeddings.word_embeddings.weight"]
    rewrite(tmp_path, lambda stored: stored | {f"{names.out}.weight": table})
    assert jaxsmooth.load_with_head(tmp_path)[1].out.kernel is None


def without_table(place, family):
    """The decoder holds the table, and the table is not there."""
    table = NAMES[family].prefix + word_table(family)
    decoder = f"{names_of(family)[1].out}.weight"
    rewrite(place, lambda t: {n: a for n, a in t.items() if n != table} | {decoder: t[table]})


@pytest.mark.compatibility("rule", "a word table stored under the name of its decoder", "read", was=3)
@pytest.mark.parametrize("family", ["roberta", "distilbert", "gpt2"])
def test_a_table_under_the_decoders_name_is_read(family, tmp_path):
    write(tmp_path, family)
    without_table(tmp_path, family)
    model, head, _ = jaxsmooth.load_with_head(tmp_path)
    for read in (jaxsmooth.load(tmp_path)[0], model):
        bare = dataclasses.replace(read.config, other_keys="")  # the key of tying, which was in the file
        assert_same_bits(dataclasses.replace(read, config=bare), small(family))
    assert head.out.kernel is None
    set_config(tmp_path, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=f"tensor '{word_table(family)}' is missing"):
        jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("rule", "one bias only, under either name", "it is added", was=0)
@pytest.mark.parametrize(("own", "beside"), [(True, False), (False, True)])
def test_one_bias_is_added_under_either_name(own, beside, tmp_path):
    extra = write(tmp_path, "bert", decoder=False, own_bias=own, beside=beside)
    bias = extra["cls.predictions.decoder.bias" if own else "cls.predictions.bias"]
    _, head, _ = jaxsmooth.load_with_head(tmp_path)
    assert head.out.kernel is None
    np.testing.assert_array_equal(head.out.bias, bias)


@pytest.mark.compatibility("rule", "tie_word_embeddings that is no true or false", "refused, as by transformers", was=1)
@pytest.mark.parametrize("tie", [0, 1, "false", "no"])
def test_tying_is_true_or_false(tie, tmp_path):
    write(tmp_path, "bert", tie=tie)
    with pytest.raises(ConfigError, match=f"tie_word_embeddings must be true or false; got {tie!r}"):
        jaxsmooth.load_with_head(tmp_path)


@pytest.mark.compatibility("loading", "a decoder of another shape than the word table", "refused by name", was=1)
def test_a_decoder_of_another_shape_is_refused(tmp_path):
    write(tmp_path, "bert")
    rewrite(tmp_path, lambda stored: stored | {"cls.predictions.decoder.weight": np.zeros((10, 6), np.float32)})
    with pytest.raises(CheckpointError, match=r"decoder.weight' must have shape \(9, 6\); got \(10, 6\)"):
        jaxsmooth.load_with_head(tmp_path)


@pytest.mark.compatibility("rule", "an untied configuration without a decoder", "refused by name", was=0)
def test_an_untied_head_needs_its_decoder(tmp_path):
    write(tmp_path, "bert", decoder=False, tie=False)
    with pytest.raises(CheckpointError, match=r"'cls.predictions.decoder.weight' of the head is missing"):
        jaxsmooth.load_with_head(tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("tie", [True, False, "no table"])
@pytest.mark.parametrize("family", DECODING)
def test_logits_are_those_of_transformers(family, tie, tmp_path):
    import torch
    import transformers

    write(tmp_path, family, tie=bool(tie))
    if tie == "no table":
        without_table(tmp_path, family)
    set_config(tmp_path, bos_token_id=0, eos_token_id=0)
    loader = transformers.AutoModelForCausalLM if family == "gpt2" else transformers.AutoModelForMaskedLM
    theirs = loader.from_pretrained(tmp_path, attn_implementation="eager").double().eval()
    tokens = np.array([[2, 5, 7]])
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens), attention_mask=torch.ones(1, 3, dtype=torch.long)).logits
    model, head, _ = jaxsmooth.load_with_head(tmp_path, dtype=jnp.float64)
    batch = jaxsmooth.Batch(jnp.asarray(tokens, jnp.int32), jnp.zeros((1, 3), jnp.int32), MASK)
    hidden, _ = jaxsmooth.encode(model, batch)
    np.testing.assert_allclose(apply_head(head, model, hidden, MASK), expected.numpy(), atol=1e-5)
