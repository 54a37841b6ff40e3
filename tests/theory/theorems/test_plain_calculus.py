"""One text, several calculi: what plain arrays find of every theorem lies in what is enclosed of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsmooth
from jaxsmooth.studies import verify
from jaxsmooth.studies.verify_stages import HostStage, crop
from jaxsmooth.theory import BlockState, data_rate, operator_rate, pairwise_rate, refined_rate
from jaxsmooth.theory.block.parameter_norms import block_norms
from jaxsmooth.theory.block.plain_calculus import PlainCalculus
from jaxsmooth.theory.block.traced_block import TracedBlock
from jaxsmooth.theory.theorems import RUNGS, THEOREMS
from jaxsmooth.theory.theorems.exact_block import ExactBlock
from jaxsmooth.theory.theorems.parameters import heads_of
from jaxsmooth.theory.theorems.quantities import HeadQuantities

# Plain norms are Lanczos's, lower estimates within 1e-10 of the norm.
RTOL = 1e-7


@pytest.fixture(scope="module")
def run():
    """The tiny model's parameters, one sentence as it was observed, its length and what the first stage encloses."""
    model, tokenizer = jaxsmooth.load("tiny")
    parameters = verify._Checker(model, tuple(THEOREMS)).parameters
    (encoded,) = tokenizer.batches(["a film"])
    data = jax.tree.map(np.asarray, verify.observe(model, encoded.batch))
    tokens = int(encoded.batch.mask[0].sum())
    return parameters, data, tokens, HostStage(parameters, tuple(THEOREMS))(data, [tokens])


def test_plain_numbers_lie_in_the_enclosures(run):
    parameters, data, tokens, enclosed = run
    own, norms = crop(data, 0, 0, tokens), parameters.norms[0]
    mixing = enclosed.mixing_at(0, 0)

    @jax.jit
    def every(block, own, norms, mixing):
        c = PlainCalculus(jnp.ones(tokens, bool), jnp.float64)
        q = ExactBlock(c, block, parameters.architecture, norms, own, mixing)
        given = (heads_of(block.attn), (norms.heads, norms.scores), own.attn)
        weights, known, attn = jax.tree.map(lambda leaf: leaf[0], given)
        head = HeadQuantities(c, weights, known, own.input, attn)
        return {name: entry.statement(head if entry.of_head else q)[:2] for name, entry in THEOREMS.items()}

    for name, sides in every(parameters.blocks[0], own, norms, mixing).items():
        statement = jax.tree.map(lambda leaf: leaf[0, 0].flat[0], enclosed.statements[name])
        for value, side in zip(sides, statement[:2], strict=True):
            slack = RTOL * abs(side.upper)
            assert side.lower - slack <= value <= side.upper + slack, name


def test_the_rungs_of_diagnose_are_the_functions_of_the_ladder():
    model, tokenizer = jaxsmooth.load("tiny")
    batch = tokenizer(["a film worth seeing"])
    trace = jax.tree.map(lambda leaf: leaf[0], jaxsmooth.encode(model, batch, collect=lambda trace: trace)[1])
    mixing = jnp.full((1, trace.attn.shape[1]), 0.5, trace.attn.dtype)
    state = BlockState(
        trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, jnp.asarray(batch.mask), mixing
    )

    @jax.jit
    def both(block, state):
        norms = block_norms(block, "gelu")
        q = TracedBlock(norms, state, block)
        ours = {rung: text(q).value(q) for rung, text in RUNGS.items() if rung not in ("L0", "L1")}
        theirs = {"L4": data_rate, "L2b": pairwise_rate, "L2": refined_rate}
        found = {rung: function(norms, state) for rung, function in theirs.items()}
        return ours, found | {"L3": operator_rate(block, norms, state)[0]}

    ours, theirs = both(trace.block, state)
    assert ours.keys() == theirs.keys()
    for rung, value in ours.items():
        np.testing.assert_allclose(value, theirs[rung], rtol=1e-6)
