"""Attention that several blocks share, and attention handed on to the next block: against numpy, and what it saves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import reference
from support.edits import edited_blocks
from support.models import CONFIG, hugging_face, random_batch, random_model

import jaxsmooth
from jaxsmooth import Edits, compose, interventions
from jaxsmooth.bert.encoder import keep_nothing
from jaxsmooth.errors import ShapeError

DEEP = dataclasses.replace(CONFIG, layers=4)
MODEL = random_model(DEEP)
LENGTHS = (7, 3)
BATCH = random_batch(LENGTHS)
WEIGHTS = reference.Weights(*hugging_face(MODEL))


def squeeze(layer, probs):
    """An edit of attention that differs from layer to layer."""
    return probs * (0.5 + 0.1 * (layer if isinstance(layer, int) else layer.astype(probs.dtype)))


def by_hand(b: int, first: int, last: int) -> dict[str, np.ndarray]:
    """Sentence b: the softmax of block `first` in those up to `last`, each of them squeezed in its own way."""
    kept = {}

    def edit(layer: int, site: str, value: np.ndarray) -> np.ndarray:
        if site != "attn":
            return value
        kept[layer] = kept[first] if first < layer <= last else value
        return squeeze(layer, kept[layer])

    return edited_blocks(WEIGHTS, np.asarray(jaxsmooth.embed(MODEL, BATCH))[b, : LENGTHS[b]], edit)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 2)])
def test_blocks_attend_by_the_first_ones_softmax(first, last):
    edits = Edits(attn=squeeze, shared_attn=(first, last))
    hidden, trace = jaxsmooth.encode(MODEL, BATCH, edits=edits)
    for b, n in enumerate(LENGTHS):
        expected = by_hand(b, first, last)
        np.testing.assert_allclose(trace.hidden[:, b, :n], expected["hidden"], rtol=0, atol=1e-11)
        np.testing.assert_allclose(trace.attn[:, b, :, :n, :n], expected["attn"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(hidden[b, :n], expected["hidden"][-1], rtol=0, atol=1e-11)
    plain = jaxsmooth.encode(MODEL, BATCH, edits=Edits(attn=squeeze))[1]
    assert np.abs(plain.hidden - trace.hidden)[first + 1].max() > 1e-3


def test_it_is_composed_restricted_and_recomputed():
    shared = Edits(shared_attn=(0, 2))
    both = compose(shared, interventions.restrict(Edits(attn=squeeze), layers=1))
    assert both.shared_attn == (0, 2)
    assert interventions.restrict(shared, layers=1).shared_attn == (0, 2)
    assert compose(shared, Edits(shared_attn=(1, 3))).shared_attn == (1, 3)

    def loss(model, edits, remat):
        return jnp.sum(jaxsmooth.encode(model, BATCH, edits=edits, remat=remat)[0] ** 2)

    plain, again = (jax.jit(jax.grad(lambda m, r=r: loss(m, shared, r)))(MODEL) for r in (False, True))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    # Queries and keys of the blocks that use another's attention have no part in the output.
    kernel = np.asarray(plain.blocks.attn.query.kernel)
    assert np.abs(kernel[[0, 3]]).max(axis=(1, 2, 3)).min() > 0
    np.testing.assert_array_equal(kernel[[1, 2]], 0)


def test_a_shared_albert_block_shares_attention_too():
    albert = random_model(dataclasses.replace(DEEP, shared_layers=True))
    repeated = dataclasses.replace(
        albert,
        blocks=jax.tree.map(lambda leaf: jnp.repeat(leaf, DEEP.layers, axis=0), albert.blocks),
        config=dataclasses.replace(albert.config, shared_layers=False),
    )
    one, other = (jaxsmooth.encode(m, BATCH, edits=Edits(shared_attn=(1, 3)))[0] for m in (albert, repeated))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_work_is_saved():
    """In the compiled program a sharing block lacks three products: queries, keys and logits."""

    def products(edits: Edits) -> int:
        run = jax.jit(lambda model: jaxsmooth.encode(model, BATCH, edits=edits, collect=keep_nothing)[0])
        return run.lower(MODEL).compile().as_text().count(" dot(")

    # A loop's body stands once: with all blocks sharing, the program has one whole block and one that shares.
    whole = products(Edits())
    assert products(Edits(shared_attn=(0, DEEP.layers - 1))) == whole + (whole - 3)


def test_the_block_before_hands_on_its_attention():
    def collect(trace):
        return trace.attn, trace.attn_before

    for edits in (Edits(attn=squeeze), Edits(shared_attn=(1, 2))):
        _, (attn, before) = jaxsmooth.encode(MODEL, BATCH, edits=edits, collect=collect, successive=True)
        np.testing.assert_array_equal(before[1:], attn[:-1])
        np.testing.assert_array_equal(before[0], 0)
    assert jaxsmooth.encode(MODEL, BATCH, collect=lambda trace: trace.attn_before)[1] is None


@pytest.mark.parametrize("shared", [(0, 4), (2, 2), (-1, 2), (3, 1), (0.0, 2), (1,), "12", [0, 2]])
def test_blocks_that_are_not_there_are_refused(shared):
    with pytest.raises(ShapeError, match=r"shared_attn must be \(first, last\) with 0 <= first < last <= 3"):
        jaxsmooth.encode(MODEL, BATCH, edits=Edits(shared_attn=shared))
