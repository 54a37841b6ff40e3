"""Measures of the literature that `diagnose` takes by name, against numpy, sentence by sentence without padding."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

import jaxsmooth
from jaxsmooth.errors import OptionError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.studies.requested.literature_metrics import LARGEST_DEGREE, degree_thresholds

TEXTS = ["A film worth seeing, if only once.", "Dull.", "So so, I say, and then some more of the same."]
CONFIG = jaxsmooth.EncoderConfig(
    vocab=TINY_VOCAB, width=16, layers=2, heads=2, mlp_width=16, max_length=64, std_init=1.0
)


@pytest.fixture(scope="module")
def seen():
    """What `diagnose` found, and what the model computed: of each text a list of layers."""
    model, tokenizer = jaxsmooth.init_encoder(CONFIG, jax.random.key(3)), Tokenizer.tiny(CONFIG)
    found = jaxsmooth.diagnose(
        model, tokenizer, TEXTS, metrics=jaxsmooth.literature_metrics(), each_text=True, baseline=False
    )
    sites = ("input", "hidden", "pre_attn", "attn_logits", "attn_probs")
    traces = []
    for text in TEXTS:
        batch = tokenizer([text])
        one = jaxsmooth.encode(model, batch, collect=lambda trace: {site: getattr(trace, site) for site in sites})[1]
        traces.append({site: real(value, int(batch.mask.sum())) for site, value in one.items()})
    return found, traces


def real(value: jax.Array, n: int) -> np.ndarray:
    """Of one text, without padding: [L n D] of tokens, [L N n n] of heads."""
    array = np.asarray(value, np.float64)[:, 0]
    return array[..., :n, :n] if array.ndim == 4 else array[:, :n]


def scores(trace: dict, layer: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and attention of a layer's heads, [N n n], and n."""
    logits = trace["attn_logits"][layer]
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return logits, weights / weights.sum(axis=-1, keepdims=True), logits.shape[-1]


def temperature(trace: dict, layer: int) -> np.ndarray:
    logits, _, n = scores(trace, layer)
    return logits.std(axis=-1).mean(axis=-1) / np.sqrt(np.log(n))


def degree(trace: dict, layer: int) -> float:
    """The index of the largest of the rates, by scipy's Bessel functions."""
    width, n = CONFIG.width // CONFIG.heads, scores(trace, layer)[2]
    k = np.arange(1, 60)
    found = []
    for beta in temperature(trace, layer) * np.sqrt(np.log(n) * width):
        rates = k * (k + width - 2) * ive(k + width / 2 - 1, beta)
        found.append(min(1 + int(np.argmax(rates)), LARGEST_DEGREE))
    return float(np.mean(found))


def limits(beta: np.ndarray) -> dict[str, float]:
    low = np.minimum(beta, np.sqrt(2))
    squares = np.where(low < np.sqrt(0.5), 1 - low**2, (np.sqrt(2) - low) ** 2)
    return {
        "participation_limit": np.maximum(0, 1 - np.sqrt(2) / beta).mean(),
        "participation_exponent_limit": squares.mean(),
        "entropy_exponent_limit": (1 - low**2 / 2).mean(),
    }


def turn(before: np.ndarray, after: np.ndarray) -> float:
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (before, after))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.degrees(np.arccos(cosine)).mean())


def mean_cosine(hidden: np.ndarray) -> float:
    units = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    return float((units @ units.T)[~np.eye(len(units), dtype=bool)].mean())


def of_block(trace: dict, layer: int) -> dict[str, float]:
    logits, weights, n = scores(trace, layer)
    beta, squares = temperature(trace, layer), (weights**2).sum(axis=-1).mean(axis=-1)
    own = np.trace(logits, axis1=1, axis2=2) / n
    others = (logits.sum(axis=(1, 2)) - n * own) / (n * (n - 1))
    before, after = (1 - mean_cosine(trace[site][layer]) for site in ("input", "hidden"))
    entropy = -(weights * np.log(weights)).sum(axis=-1).mean(axis=-1)
    return {
        "temperature": beta.mean(),
        "hottest_head": beta.max(),
        "participation": squares.mean(),
        "participation_exponent": (-np.log(squares) / np.log(n)).mean(),
        "entropy_exponent": (entropy / np.log(n)).mean(),
        **limits(beta),
        "cluster_degree": degree(trace, layer),
        "waiting_heads": (own - others > np.log(n)).mean(),
        "turn_attn": turn(trace["input"][layer], trace["pre_attn"][layer]),
        "turn_block": turn(trace["input"][layer], trace["hidden"][layer]),
        "angle_exponent": np.log(after / before),
    }


def of_state(hidden: np.ndarray) -> dict[str, float]:
    units = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    mean, n = hidden.mean(axis=0), len(hidden)
    parts = hidden[: n // 2], hidden[n // 2 :]
    between = sum(len(part) * ((part.mean(axis=0) - mean) ** 2).sum() for part in parts)
    within = sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts)
    return {
        "smallest_cosine": (units @ units.T).min(),
        "cone_tangent": np.linalg.norm(hidden - mean) / (np.sqrt(n) * np.linalg.norm(mean)),
        "separation_of_halves": between / within,
    }


def test_every_measure_is_that_of_numpy(seen):
    found, traces = seen
    checked = set()
    for place, trace in enumerate(traces):
        states = [trace["input"][0], *trace["hidden"]]
        for layer, hidden in enumerate(states):
            expected = of_state(hidden) | (of_block(trace, layer - 1) if layer else {})
            for name, value in expected.items():
                got = found.texts.values[f"own/{name}"][layer, place]
                assert got == pytest.approx(value, rel=2e-4, abs=2e-5), (name, layer, place)
            checked |= set(expected)
    assert checked == set(jaxsmooth.LITERATURE_METRICS)


def test_of_blocks_there_is_none_at_the_embedding(seen):
    found, traces = seen
    assert np.isnan(found.metrics["temperature"].mean[0])
    expected = np.mean([of_block(trace, 1)["temperature"] for trace in traces])
    assert found.metrics["temperature"].mean[2] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(found.metrics["cone_tangent"].mean).all()


def test_degrees_change_where_the_recursion_says():
    for width in (2, 8, 32):
        thresholds = degree_thresholds(width)
        assert list(thresholds) == sorted(thresholds)
        for degree_, least in enumerate(thresholds[:3], start=1):
            assert jaxsmooth.theory.bruno2024_degree(0.99 * least, width) == degree_
            assert jaxsmooth.theory.bruno2024_degree(1.01 * least, width) == degree_ + 1


def test_a_sentence_of_one_token_has_no_value():
    model = jaxsmooth.init_encoder(CONFIG, jax.random.key(3))
    mask = np.array([[True, False, False]])
    batch = jaxsmooth.Batch(tokens=np.ones((1, 3), int), segments=np.zeros((1, 3), int), mask=mask)
    chosen = jaxsmooth.literature_metrics()
    blocks = {name: one.text for name, one in chosen.items() if isinstance(one, jaxsmooth.BlockMetric)}

    @jax.jit
    def run(model):
        return jaxsmooth.encode(model, batch, collect=lambda trace: [one(trace, mask) for one in blocks.values()])[1]

    assert np.isnan(run(model)).all()
    for name in chosen.keys() - blocks.keys():
        assert np.isnan(chosen[name](jnp.ones((1, 3, 2)), jnp.asarray(mask))).all(), name


def test_an_unknown_name_is_answered():
    with pytest.raises(OptionError, match=r"no metric 'temperatur' of the literature.*Did you mean 'temperature'"):
        jaxsmooth.literature_metrics("temperatur")


@pytest.mark.long
def test_the_command_measures_what_is_asked_for(tmp_path):
    command = [sys.executable, "-m", "jaxsmooth", "diagnose", "tiny", "--data", "tiny", "--limit", "2", "--out"]
    done = subprocess.run([*command, str(tmp_path), "--metric", "turn_block"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "turn_block" in done.stdout
    assert '"turn_block"' in (tmp_path / "report.json").read_text()
