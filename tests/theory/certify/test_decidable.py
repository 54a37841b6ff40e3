"""What is plain to see is decided: one token, equal tokens, weights of zero, attention that is the same for all."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import jaxsmooth
from jaxsmooth.studies import verify
from jaxsmooth.studies.verify_stages import HostStage
from jaxsmooth.theory.statement import Verdict, decide
from jaxsmooth.theory.theorems import THEOREMS

# Of one head of one token, or of zero weights, both sides are 0; scores of -inf are no part of what a model observes.
NAMES = tuple(THEOREMS)


@pytest.fixture(scope="module")
def run():
    """The tiny model's parameters, and one sentence as it was observed."""
    model, tokenizer = jaxsmooth.load("tiny")
    parameters = verify._Checker(model, NAMES).parameters
    (encoded,) = tokenizer.batches(["a film"])
    data = jax.tree.map(np.asarray, verify.observe(model, encoded.batch))
    return parameters, data, int(encoded.batch.mask[0].sum())


def undecided(parameters, data, tokens: int) -> set[str]:
    """Of the first stage, on the host; none is violated."""
    found = HostStage(parameters, NAMES)(data, [tokens]).statements
    verdicts = {name: np.asarray(decide(*statement)) for name, statement in found.items()}
    assert not any((verdict == Verdict.VIOLATED).any() for verdict in verdicts.values())
    return {name for name, verdict in verdicts.items() if (verdict != Verdict.CONFIRMED).any()}


def first_rows(leaf: np.ndarray, tokens: int) -> np.ndarray:
    """All tokens as the first one."""
    kept = leaf.copy()
    kept[..., :tokens, :] = leaf[..., :1, :]
    return kept


def test_one_token(run):
    """A sentence of one token is at consensus, whatever it is."""
    parameters, data, _ = run
    alone = jax.tree.map(lambda leaf: leaf[..., :1, :], data)._replace(attn=np.ones_like(data.attn[..., :1, :1]))
    assert undecided(parameters, alone, 1) == set()


def test_equal_tokens(run):
    """Every array of a model at consensus has equal rows, attention's too: 0 <= 0."""
    parameters, data, tokens = run
    assert undecided(parameters, jax.tree.map(functools.partial(first_rows, tokens=tokens), data), tokens) == set()


def test_attention_that_is_the_same_for_all(run):
    """J A = 0, bit by bit: what mixes with A is decided."""
    parameters, data, tokens = run
    open_ones = undecided(parameters, data._replace(attn=first_rows(data.attn, tokens)), tokens)
    mixing = {"shi2022_lemma1_4_mixing", "wang2022_high_frequency", "dobrushin1956_diameter"}
    assert not open_ones & {*mixing, "birkhoff1957_ergodicity", "mixing_by_ergodicity", "sink_mixing"}


def test_weights_of_zero(run):
    """Kernels of zero make sides of zero, and equal tokens of any others."""
    parameters, data, tokens = run

    def without(block):
        kernels = {
            side: dataclasses.replace(getattr(block.attn, side), kernel=0 * getattr(block.attn, side).kernel)
            for side in ("query", "key", "value", "output")
        }
        empty = {
            side: dataclasses.replace(getattr(block, side), kernel=0 * getattr(block, side).kernel)
            for side in ("up", "down")
        }
        return dataclasses.replace(block, attn=dataclasses.replace(block.attn, **kernels), **empty)

    blocks = [without(block) for block in parameters.blocks]
    silent = parameters._replace(blocks=blocks, norms=verify.enclosed_parameter_norms(blocks))
    of_weights = {
        *("shi2022_lemma1_1_values", "shi2022_lemma1_1_up", "shi2022_lemma1_1_down", "wang2022_high_frequency"),
        *("score_spread", "mixing_before_attention", "cubic_collapse", "cubic_collapse_heads"),
    }
    assert not undecided(silent, data, tokens) & of_weights
