"""Remedies in an encoder: every one against a forward pass written out in numpy, composed, differentiated, padded."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference, reference_remedies
from support.edited_runs import BATCH, LENGTHS, MODEL, WEIGHTS, run
from support.edits import edited_block
from support.models import CONFIG, hugging_face, random_batch, random_model

import jaxsmooth
from jaxsmooth import compose
from jaxsmooth.errors import OptionError
from jaxsmooth.mitigations import make_definite, parse_remedies, remedies

EMBEDDED = np.asarray(jaxsmooth.embed(MODEL, BATCH))
LAST = CONFIG.layers - 1
PER_HEAD = np.array([0.2, -0.1, 0.4])


class Sentence:
    """What a numpy edit may know: the first values, the last values, the last scores, the sentence's embedding."""

    def __init__(self, embedded: np.ndarray) -> None:
        self.embedded, self.first, self.value, self.scores = embedded, None, None, None


def heads(function):
    return lambda layer, value, s: np.stack([function(h, one) for h, one in enumerate(value)])


def at(layer_test, function):
    return lambda layer, value, s: function(value) if layer_test(layer) else value


def kept_scores(layer, value, s):
    s.scores = value
    return value


def joined(function):
    """On [n (N H)], as the output projection reads the heads."""

    def edit(layer, value, s):
        n_heads, n, h = value.shape
        flat = function(value.transpose(1, 0, 2).reshape(n, n_heads * h))
        return flat.reshape(n, n_heads, h).transpose(1, 0, 2)

    return edit


def spread(x):
    return reference_remedies.contranorm(x, 0.3, form="vit", temperature=0.7)


CASES = {
    "contranorm": (
        remedies.contranorm(0.3),
        {"pre_attn": lambda layer, x, s: reference_remedies.contranorm(x, 0.3)},
    ),
    "contranorm-dual": (
        remedies.contranorm(0.3, dual=True, position="hidden"),
        {"hidden": lambda layer, x, s: reference_remedies.contranorm(x, 0.3, dual=True)},
    ),
    "contranorm-input": (
        remedies.contranorm(0.3, form="vit", temperature=0.7, position="input"),
        {"embedded": lambda layer, x, s: spread(x), "hidden": at(lambda layer: layer < LAST, spread)},
    ),
    "contranorm-context": (
        remedies.contranorm(0.3, form="vit", temperature=0.7, position="context"),
        {"context": joined(spread)},
    ),
    "attnscale": (
        remedies.attn_scale(PER_HEAD),
        {"attn": heads(lambda h, a: reference_remedies.attn_scale(a, PER_HEAD[h]))},
    ),
    "centred": (remedies.centred_attention(), {"attn": heads(lambda h, a: reference_remedies.centred(a))}),
    "gfsa": (
        remedies.graph_filter(PER_HEAD, identity=0.1, order=4),
        {"attn": heads(lambda h, a: reference_remedies.gfsa(a, PER_HEAD[h], 0.1, 1.0, 4))},
    ),
    "tempscale": (
        remedies.temp_scale(1 + PER_HEAD),
        {"attn_logits": heads(lambda h, scores: reference_remedies.temp_scale(scores, 1 + PER_HEAD[h]))},
    ),
    "lengthscale": (
        remedies.length_scale(20.0),
        {"attn_logits": heads(lambda h, scores: reference_remedies.length_scale(scores, 20.0))},
    ),
    "resgcn": (
        remedies.resgcn(),
        {
            "attn_logits": kept_scores,
            "attn": lambda layer, a, s: np.stack([reference_remedies.graph_normalised(one) for one in s.scores]),
            "mixed": lambda layer, y, s: np.maximum(y, 0),
        },
    ),
    "featscale": (
        remedies.feat_scale(-0.1, 0.4, convention="released"),
        {"mixed": lambda layer, y, s: reference_remedies.feat_scale(y, -0.1, 0.4, factor=2)},
    ),
    "neutreno": (
        remedies.neutreno(0.6),
        {
            "context": lambda layer, u, s: (
                reference_remedies.neutreno(u, s.value, s.first, 0.6) if layer else u  # l >= 1
            )
        },
    ),
    "pairnorm": (
        remedies.pair_norm(),
        {"hidden": lambda layer, x, s: reference_remedies.pair_norm(x, np.sqrt(CONFIG.width))},
    ),
    "initial": (
        remedies.initial_residual(0.2),
        {"hidden": lambda layer, x, s: reference_remedies.initial_residual(x, s.embedded, 0.2)},
    ),
    "softdecay": (
        remedies.soft_decay(),
        {"hidden": at(lambda layer: layer == LAST, reference_remedies.soft_decay)},
    ),
    "residual": (
        remedies.residual_scaling(),
        {site: lambda layer, y, s: y / np.sqrt(CONFIG.layers) for site in ("mixed", "mlp")},
    ),
    "two at one site": (
        remedies.combine(remedies.attn_scale(0.5), remedies.centred_attention(0.5), remedies.contranorm(0.1)),
        {
            "attn": heads(lambda h, a: reference_remedies.centred(reference_remedies.attn_scale(a, 0.5), 0.5)),
            "pre_attn": lambda layer, x, s: reference_remedies.contranorm(x, 0.1),
        },
    ),
}


def in_numpy(b: int, edits: dict) -> np.ndarray:
    """Every block's output for sentence b, [L n D]."""
    known = Sentence(EMBEDDED[b, : LENGTHS[b]])
    x = edits["embedded"](-1, known.embedded, known) if "embedded" in edits else known.embedded
    kept = []
    for layer in range(CONFIG.layers):

        def edit(site, value, layer=layer):
            if site == "value":
                known.value = value
                known.first = value if layer == 0 else known.first
            return edits[site](layer, value, known) if site in edits else value

        x = edited_block(WEIGHTS, layer, x, edit)["hidden"]
        kept.append(x)
    return np.stack(kept)


@pytest.mark.parametrize("name", CASES)
def test_the_encoder_computes_what_numpy_does(name):
    remedy, edits = CASES[name]
    hidden = run(remedy(MODEL, BATCH))
    assert np.isfinite(hidden).all()
    plain = run(jaxsmooth.Edits())
    for b, n in enumerate(LENGTHS):
        expected = in_numpy(b, edits)
        np.testing.assert_allclose(hidden[:, b, :n], expected, rtol=0, atol=1e-11)
        assert np.abs(hidden[-1, b, :n] - plain[-1, b, :n]).max() > 1e-3  # it did something


EVERY = parse_remedies(
    "resgcn+contranorm+attnscale+featscale+neutreno+gfsa+centred:0.5+softdecay+pairnorm+initial-residual+residual-scaling"
    "+attention-dropout+tempscale+lengthscale"
)[0]


def test_a_model_with_padding_can_be_trained_with_all_of_them():
    """The derivative by every parameter is finite, and no parameter of the last block is without one."""

    def squared(model):
        hidden, _ = jaxsmooth.encode(model, BATCH, edits=EVERY.edits(model, BATCH))
        return jnp.sum(jnp.where(BATCH.mask[..., None], hidden, 0) ** 3)

    gradient = jax.jit(jax.grad(squared))(MODEL)
    for leaf in jax.tree.leaves(gradient):
        assert jnp.isfinite(leaf).all()
    assert all(jnp.abs(leaf[-1]).max() > 0 for leaf in (gradient.blocks.up.kernel, gradient.blocks.down.kernel))


def test_other_tokens_under_the_padding_change_nothing():
    """All remedies at once; random tokens stand under the padding, others in each batch."""
    found = []
    for length, seed in ((8, 0), (8, 5), (11, 6)):
        batch = random_batch(LENGTHS, length, seed=seed)
        own = jnp.zeros((2, length), jnp.int32).at[:, :8].set(BATCH.tokens)
        real = batch.mask
        batch = dataclasses.replace(
            batch,
            tokens=jnp.where(real, own, batch.tokens),
            segments=jnp.where(real, jnp.zeros_like(own).at[:, :8].set(BATCH.segments), batch.segments),
        )
        found.append(run(EVERY.edits(MODEL, batch), batch)[:, :, :8])
    for b, n in enumerate(LENGTHS):
        for other in found[1:]:
            np.testing.assert_allclose(other[:, b, :n], found[0][:, b, :n], rtol=0, atol=1e-11)


def test_a_sweep_of_strengths_is_one_program(traces):
    hidden = [run_plainly(remedies.contranorm(s, dual=True)(MODEL, BATCH)) for s in (0.1, 0.2, 0.4)]
    assert len(traces) == 1
    assert not np.allclose(hidden[0], hidden[1])


def run_plainly(edits):
    return jaxsmooth.encode(MODEL, BATCH, edits=edits, collect=jaxsmooth.keep_nothing)[0]


def test_gradients_reach_the_strengths():
    def loss(s):
        one = remedies.combine(
            remedies.resgcn(),
            remedies.contranorm(s[0], temperature=s[1]),
            remedies.attn_scale(s[2]),
            remedies.graph_filter(s[3]),
            remedies.feat_scale(s[4], s[5]),
            remedies.neutreno(s[6]),
            remedies.initial_residual(s[7]),
            remedies.pair_norm(s[8]),
            remedies.residual_scaling(s[9]),
            remedies.temp_scale(s[10]),
            remedies.length_scale(s[11]),
        )
        return jnp.sum(jnp.sin(jnp.where(BATCH.mask[..., None], run_plainly(one(MODEL, BATCH)), 0)))

    at_ = jnp.array([0.2, 0.8, 0.3, -0.2, 0.1, 0.3, 0.4, 0.1, 3.0, 0.7, 0.6, 5.0])
    slopes = jax.jit(jax.grad(loss))(at_)
    steps = 1e-6 * np.eye(len(at_))
    values = jax.jit(jax.vmap(loss))(at_[None] + jnp.asarray(np.concatenate([steps, -steps])))
    numeric = (values[: len(at_)] - values[len(at_) :]) / 2e-6
    assert np.abs(slopes).min() > 1e-4
    np.testing.assert_allclose(slopes, numeric, rtol=1e-4, atol=1e-8)


def test_dropout_differs_by_layer_and_repeats_by_key():
    edits = [remedies.attention_dropout(jax.random.key(k), 0.4)(MODEL, BATCH) for k in (1, 1, 2)]
    found = [jaxsmooth.encode(MODEL, BATCH, edits=one)[1].attn for one in edits]
    np.testing.assert_array_equal(found[0], found[1])
    zeros = np.asarray(found[0])[:, 0, :, :7, :7] == 0
    assert (zeros[0] != zeros[1]).any()
    assert (np.asarray(found[2]) != np.asarray(found[0])).any()


@pytest.mark.parametrize("sign", [-1, 1])
def test_definite_weights(sign):
    model = make_definite(MODEL, sign=sign)
    attn, old = model.blocks.attn, MODEL.blocks.attn
    new_w, old_w = (
        np.einsum("ldnh,lnhe->lnde", np.asarray(a.value.kernel), np.asarray(a.output.kernel)) for a in (attn, old)
    )
    for one, before in zip(new_w.reshape(-1, 12, 12), old_w.reshape(-1, 12, 12), strict=True):
        np.testing.assert_allclose(one, reference_remedies.definite(before, sign), rtol=0, atol=1e-12)
        assert np.all(sign * np.linalg.eigvalsh(one) > -1e-12)
    # The values' bias reaches every token whole, as rows sum to 1: it stands in the output bias now.
    assert np.all(attn.value.bias == 0)
    moved = np.einsum("lnh,lnhd->ld", np.asarray(old.value.bias), np.asarray(old.output.kernel))
    np.testing.assert_allclose(attn.output.bias, np.asarray(old.output.bias) + moved, rtol=0, atol=1e-13)
    expected = reference.forward(
        *hugging_face(model), np.asarray(BATCH.tokens[0, :7]), np.asarray(BATCH.segments[0, :7])
    )
    np.testing.assert_allclose(run(jaxsmooth.Edits(), model=model)[:, 0, :7], expected.hidden[1:], rtol=0, atol=1e-11)


def test_definite_weights_of_a_model_without_these_biases():
    config = dataclasses.replace(CONFIG, attn_bias=False)
    model = make_definite(random_model(config))
    assert model.blocks.attn.value.bias is None
    assert model.blocks.attn.output.bias is None
    with pytest.raises(OptionError, match="sign must be -1 or 1; got 2"):
        inspect.unwrap(make_definite)(MODEL, sign=2)


def test_a_named_remedy_changes_weights_and_edits():
    one = parse_remedies("definite+contranorm:0.3")[0]
    model = one.change(MODEL)
    np.testing.assert_array_equal(model.blocks.attn.value.kernel, make_definite(MODEL).blocks.attn.value.kernel)
    by_hand = compose(remedies.contranorm(0.3)(model, BATCH))
    np.testing.assert_allclose(run(one.edits(model, BATCH), model=model), run(by_hand, model=model), rtol=0, atol=1e-13)


def test_a_causal_graph_has_no_symmetric_adjacency():
    causal = dataclasses.replace(MODEL, config=dataclasses.replace(CONFIG, causal=True))
    with pytest.raises(OptionError, match="edges go both ways; this encoder is causal"):
        parse_remedies("resgcn")[0].edits(causal, BATCH)


def test_every_name_runs_on_another_family():
    """A causal pre-LN encoder with rotary positions: finite, and what does not mix tokens stays causal."""
    config = dataclasses.replace(
        CONFIG, placement="pre", causal=True, positions="rotary", embedding_norm=False, norm="rmsnorm", final_norm=True
    )
    model = random_model(config)
    changed = dataclasses.replace(BATCH, tokens=BATCH.tokens.at[0, 5].set((BATCH.tokens[0, 5] + 1) % CONFIG.vocab))
    for one in parse_remedies("gfsa,neutreno,initial-residual,residual-scaling,tempscale,contranorm,featscale"):
        own = one.change(model)
        before, after = (run(one.edits(own, b), b, own)[:, 0, :5] for b in (BATCH, changed))
        assert np.isfinite(before).all()
        assert one.mixes == (np.abs(before - after).max() > 1e-9), one.label
