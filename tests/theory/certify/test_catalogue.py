"""Statements of 2024 to 2026 that `verify` evaluates on request, against numpy and scipy, from the model's own run."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jaxsmooth
from jaxsmooth.errors import OptionError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.theory.certify.catalogue import CATALOGUE, SHARPNESS, TIME

CONFIG = jaxsmooth.EncoderConfig(
    vocab=TINY_VOCAB, width=16, layers=2, heads=2, mlp_width=16, max_length=64, std_init=1.0
)
NAMES = (
    "zhang2026_smoothing",
    "geshkovski2023_clustering",
    "geshkovski2023_discrete_step",
    "chen2025_clustering",
    "labovich2026_recall",
)
ACUTE = 2
"""The layer that a shift common to all tokens enters at acute angles; the first is entered at obtuse ones."""


@pytest.fixture(scope="module")
def run():
    """(name, layer, head) -> check; and the layers' inputs, outputs and attention."""
    model = jaxsmooth.init_encoder(CONFIG, jax.random.key(1))
    norm = dataclasses.replace(model.blocks.norm_mlp, bias=np.full((2, CONFIG.width), 3, np.float32))
    model = dataclasses.replace(model, blocks=dataclasses.replace(model.blocks, norm_mlp=norm))
    tokenizer, text = Tokenizer.tiny(CONFIG), "A film worth seeing, if only once."
    found = jaxsmooth.verify(model, tokenizer, [text], theorems=NAMES)
    batch = tokenizer([text])
    n = int(batch.mask.sum())
    trace = jaxsmooth.encode(model, batch, collect=lambda one: (one.input, one.hidden, one.attn))[1]
    before, after, attn = (np.asarray(value, np.float64)[:, 0] for value in trace)
    checks = {(check.theorem, check.layer, check.head): check for check in found.checks}
    return checks, {"input": before[:, :n], "hidden": after[:, :n], "attn": attn[..., :n, :n]}


def units(tokens: np.ndarray) -> np.ndarray:
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)


def attention(x: np.ndarray) -> np.ndarray:
    weights = np.exp(SHARPNESS * x @ x.T)
    return weights / weights.sum(axis=1, keepdims=True)


def flowed(start: np.ndarray) -> np.ndarray:
    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        x = flat.reshape(start.shape)
        pull = attention(x) @ x
        return (pull - (pull * x).sum(axis=1, keepdims=True) * x).ravel()

    return solve_ivp(velocity, (0, TIME), start.ravel(), rtol=1e-11, atol=1e-12).y[:, -1].reshape(start.shape)


def gap(x: np.ndarray) -> float:
    return 1 - (x @ x.T).min()


def test_tokens_of_a_layer_flow_together_as_fast_as_is_proved(run):
    checks, trace = run
    start = units(trace["input"][ACUTE - 1])
    g, n, after = 1 - gap(start), len(start), flowed(start)
    assert g > 0 > 1 - gap(units(trace["input"][0]))
    check = checks["chen2025_clustering", ACUTE, None]
    grown = (1 + (n - 1) * g) * np.exp(2 * np.exp(-SHARPNESS * (1 - g)) * TIME)
    assert check.verdict == "CONFIRMED"
    assert check.lhs == pytest.approx(gap(after), rel=1e-5)
    assert check.rhs == pytest.approx(n * (1 - g) / ((n - 1) * (1 - g) + grown), rel=1e-5)
    older = checks["geshkovski2023_clustering", ACUTE, None]
    assert older.verdict == "CONFIRMED"
    assert older.rhs == pytest.approx(1 - gap(after), rel=1e-5)
    assert older.lhs < 1 - check.rhs  # the newer rate does not know n
    for name in ("chen2025_clustering", "geshkovski2023_clustering"):
        assert checks[name, 1, None].verdict == "NOT_APPLICABLE"


def test_one_step_without_residual(run):
    checks, trace = run
    start = units(trace["input"][ACUTE - 1])
    after = units(attention(start) @ start)
    check = checks["geshkovski2023_discrete_step", ACUTE, None]
    assert check.verdict == "CONFIRMED"
    assert check.lhs == pytest.approx(np.sqrt(2 * gap(after)), rel=1e-5)


def test_a_step_with_recall(run):
    checks, trace = run

    def distance(tokens: np.ndarray) -> float:
        return float(np.linalg.norm(tokens - tokens.mean(axis=0)))

    for layer, (before, after) in enumerate(zip(trace["input"], trace["hidden"], strict=True), start=1):
        check = checks["labovich2026_recall", layer, None]
        assert check.verdict == "CONFIRMED"
        assert check.lhs == pytest.approx(distance(before), rel=1e-5)
        assert check.rhs == pytest.approx(distance(before + after) + distance(after), rel=1e-5)


def test_smoothing_of_the_two_halves(run):
    """The right side is F(AX)^(1/2), the classes the halves of the sentence."""
    checks, trace = run
    for layer, (tokens, heads) in enumerate(zip(trace["input"], trace["attn"], strict=True), start=1):
        for head, attn in enumerate(heads):
            mixed = attn @ tokens
            parts = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
            between = sum(len(part) * ((part.mean(axis=0) - mixed.mean(axis=0)) ** 2).sum() for part in parts)
            within = sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)
            check = checks["zhang2026_smoothing", layer, head]
            assert check.verdict == "CONFIRMED"
            assert check.rhs == pytest.approx(np.sqrt(between / within), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "why"),
    [("alman2025_one_layer", "Lipschitz constant is not known"), ("labovich2026_fixed_state", "no fixed")],
)
def test_what_a_run_has_not_got_is_refused_with_the_reason(name, why):
    assert CATALOGUE[name].about is None
    with pytest.raises(OptionError, match=f"{name} needs .*verify does not take from a model on text: .*{why}"):
        jaxsmooth.verify(None, None, ["Dull."], theorems=[name])
