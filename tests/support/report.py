"""Synthetic diagnoses: made-up numbers of realistic size, labelled as such, for tests of the report."""

import dataclasses

import numpy as np

from jaxsmooth.results.comparison import COMPARED_RATES, Comparison, Cost, Measured, PairedEffect
from jaxsmooth.results.convergence import CONVERGENCE, HeadConvergence
from jaxsmooth.results.diagnosis import Diagnosis, Exemplar, Untrained
from jaxsmooth.results.spread import Spread
from jaxsmooth.results.summaries import RATES, DataSummary, ModelSummary
from jaxsmooth.results.verification import VERDICTS, Check, TheoremSummary, Verification
from jaxsmooth.results.weights import MATRICES, MatrixSpectra, WeightSpectra

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>window.pwned=1</script>", "<!--", "$\\frac$", "漢\x00\n")
PARTS = ("attention", "norm_attn", "mlp", "norm_mlp")
WORDS = ("[CLS]", "a", "film", "worth", "seeing", ",", "if", "only", "once", ".", "[SEP]")


def chart_data(spec, *keys):
    """Every datum of a Vega-Lite description that has all of `keys`."""
    if isinstance(spec, list):
        return [row for part in spec for row in chart_data(part, *keys)]
    if not isinstance(spec, dict):
        return []
    own = spec["data"].get("values", []) if isinstance(spec.get("data"), dict) else []
    return [row for row in own if set(keys) <= set(row)] + chart_data(list(spec.values()), *keys)


def spread(mean, width=0.1, count=256):
    """A spread around `mean` whose standard deviation is `width` of it and whose range is three times that."""
    mean = np.asarray(mean, np.float64)
    std = width * np.abs(np.where(np.isfinite(mean), mean, 0.0))
    return Spread(mean, std, mean - 3 * std, mean + 3 * std, np.full(mean.shape, count, np.int64))


def undefined(shape):
    """A spread in which no sentence has a value."""
    nan = np.full(shape, np.nan)
    return Spread(nan, nan, nan, nan, np.zeros(shape, np.int64))


def exemplar(layers, heads, tokens=WORDS):
    """A sentence whose tokens drift together and whose heads attend to random tokens."""
    rng = np.random.default_rng(0)
    size = len(tokens)
    common = rng.normal(size=(1, 64))
    cosine = []
    for layer in range(layers + 1):
        states = rng.normal(size=(size, 64)) + common * 0.25 * layer
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        cosine.append(states @ states.T)
    logits = rng.normal(size=(layers, heads, size, size)) * 2
    attn = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    text = " ".join(tokens[1:-1])
    return Exemplar(text, tuple(tokens), np.array(cosine, np.float32), attn.astype(np.float32))


def rates(layers):
    """A ladder like that of a small trained encoder: valid, and useless by three orders of magnitude."""
    depth = np.linspace(0, 1, layers)
    rows = {
        "actual": 0.8 + 0.35 * np.sin(2.5 * depth) ** 2,
        "L5": 1.7 + 0.4 * depth,
        "L4": 42 + 44 * depth,
        "L3": 142 + 170 * depth,
        "L2b": 600 + 500 * depth,
        "L2": 900 + 700 * depth,
        "L1": 4800 + 6400 * depth,
        "L0": np.full(layers, 120_000.0),
    }
    return {name: spread(rows[name], 0.05) for name in RATES}


def weights(layers, gate=False):
    """Spectra of weights that do not exist."""
    depth = np.linspace(0, 1, layers)
    names = [name for name in MATRICES if gate or name != "gate"]
    made = {
        name: MatrixSpectra(
            singular_values=np.outer(1 + depth, [9.0, 7.0, 5.0, 4.0, 3.0]) + place,
            stable_rank=10 + 20 * depth,
            alpha=2.5 + depth + 4 * (name == "down"),
            error=0.1 + 0.1 * depth,
            distance=np.full(layers, 0.06),
            tail=np.full(layers, 70 - 15 * place),
            count=np.full(layers, 384),
        )
        for place, name in enumerate(names)
    }
    turning = np.where(np.arange(layers) % 2 > 0, 0.5j, 0)
    return WeightSpectra(made, 1.5 + turning, np.full(layers, 1.2), np.full(layers, 0.041))


def synthetic(layers=6, heads=12, *, cosine=None, name="synthetic-minilm", **fields):
    """A diagnosis of a model that does not exist; keyword arguments replace fields."""
    rng = np.random.default_rng(1)
    similar = np.linspace(0.06, 0.44, layers + 1) if cosine is None else np.asarray(cosine, np.float64)
    relative = np.sqrt(np.clip(1 - similar, 0, None))
    depth = np.linspace(0, 1, layers)
    made = Diagnosis(
        model=ModelSummary(name, "bert", layers, heads, 384, 1536, "gelu", 22_565_376, "float32", "synthetic numbers"),
        data=DataSummary("synthetic sentences", 256, 7300, 3),
        cosine_similarity=spread(similar),
        relative_distance=spread(relative, 0.02),
        subspace_distance=spread(relative * 60, 0.08),
        effective_rank=spread(22 - 8 * np.linspace(0, 1, layers + 1)),
        stable_rank=spread(9 - 6 * np.linspace(0, 1, layers + 1)),
        token_norm=spread(np.full(layers + 1, 11.0)),
        std_attn=spread(0.7 + 0.3 * depth, 0.15),
        std_mlp=spread(0.9 + 0.8 * depth, 0.15),
        std_product=spread((0.6 + 0.2 * depth) * (0.7 + 0.6 * depth), 0.12),
        threshold=spread(3500 + 6000 * depth, 0.06),
        attention_similarity=spread(np.where(np.arange(layers) > 0, 0.4 + 0.5 * depth, np.nan), 0.05),
        principal_alignment=spread(0.05 + 0.1 * depth),
        weights=weights(layers),
        mixing_rate=spread(rng.uniform(0.2, 1.3, (layers, heads))),
        ergodicity_coefficient=spread(rng.uniform(0.4, 0.99, (layers, heads)), 0.01),
        attention_entropy=spread(rng.uniform(0.5, 3.0, (layers, heads))),
        sink_strength=spread(np.linspace(0.1, 0.9, layers * heads).reshape(layers, heads)),
        first_token_attention=spread(np.full((layers, heads), 0.125)),
        rates=rates(layers),
        exemplar=exemplar(layers, heads),
        versions={"jaxsmooth": "0.1.0", "numpy": np.__version__, "platform": "synthetic"},
        parts=PARTS,
        attribution=spread(np.array([-0.05, -0.08, 0.1, -0.01]) * (1 + depth[:, None])),
        anisotropy=similar / 3,
        untrained=Untrained(16, 0, np.linspace(0.02, 0.3, layers + 1), np.linspace(0.98, 0.8, layers + 1)),
    )
    return dataclasses.replace(made, **fields)


def blank(layers=2, heads=3):
    """A diagnosis in which nothing has a value, as of one-token sentences."""
    state, block, head = undefined(layers + 1), undefined(layers), undefined((layers, heads))
    return synthetic(
        layers,
        heads,
        cosine_similarity=state,
        relative_distance=state,
        subspace_distance=state,
        effective_rank=state,
        stable_rank=state,
        token_norm=state,
        std_attn=block,
        std_mlp=block,
        std_product=block,
        threshold=block,
        attention_similarity=block,
        principal_alignment=block,
        mixing_rate=head,
        ergodicity_coefficient=head,
        attention_entropy=head,
        sink_strength=head,
        first_token_attention=head,
        rates=dict.fromkeys(RATES, block),
        exemplar=None,
        attribution=undefined((layers, 4)),
        anisotropy=np.full(layers + 1, np.nan),
        untrained=Untrained(1, 0, np.full(layers + 1, np.nan), np.full(layers + 1, np.nan)),
    )


def comparison(model, data):
    """Of the model as it is and with a remedy that has the model's name."""
    return Comparison(
        model, data, ("attn", "norm", "mlp", "norm"), (_measured(model, "none"), _measured(model, model.name)), {}
    )


def _measured(model, label):
    states, ladder = spread([0.1] * (model.layers + 1)), rates(model.layers)
    fused = {"max": {"cosine_similarity": spread([0.3]), "relative_distance": spread([0.3])}}
    kept = {rate: ladder[rate] for rate in COMPARED_RATES}
    parts = spread([[0.1] * 4] * model.layers)
    effect = PairedEffect(256, 256, 0, -0.1, -0.2, -0.05, 1e-9, 0.95)
    effects = {} if label == "none" else dict.fromkeys(("cosine_similarity", "relative_distance"), effect)
    cost = None if label == "none" else Cost(0, 1.25, False)
    return Measured(label, model.name, model.name, states, states, kept, parts, fused, spread([0.2]), effects, cost)


def verification(model, data):
    """One theorem, which has the model's name and is violated."""
    name, counts = model.name, dict.fromkeys(VERDICTS, 1)
    check = Check(name, 1, 0, 2.0, 1.0, "VIOLATED", 0, counts)
    return Verification(model, data, (check,), (TheoremSummary(name, name, counts, (1.0, 2.0, 3.0)),), {name: 1}, {})


def convergence(model, data):
    """Every head alike."""
    one = dict.fromkeys(CONVERGENCE, spread([[0.5] * model.heads] * model.layers))
    return HeadConvergence(model, data, 4, 16, 1e-3, dict.fromkeys(("full", "causal", "window"), one), {})
