"""The measurements of the paper's claims, at tiny sizes, against plain numpy."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsmooth
from experiments.neighbours import projection, softdecay
from experiments.paper import bounds, convolution, criticisms, figure_1a, figure_3, observed, probes, replaced_rows, std
from jaxsmooth.assets.texts import read_texts


@pytest.fixture(scope="module")
def tiny() -> tuple:
    return jaxsmooth.load("tiny")


@pytest.fixture(scope="module")
def measured(tiny) -> dict[str, np.ndarray]:
    return observed.measured(*tiny, read_texts("tiny", 5))


def plain_traces(tiny, texts: list[str]) -> list[tuple[np.ndarray, ...]]:
    """Embedding and hidden states [L+1 n D], attention [L N n n], stds [L n] of each text by itself, unpadded."""
    model, tokenizer = tiny
    found = []
    for text in texts:
        batch = tokenizer([text])
        n = int(batch.mask.sum())
        _, trace = jaxsmooth.encode(model, batch)
        states = np.concatenate([np.asarray(jaxsmooth.embed(model, batch))[None], np.asarray(trace.hidden)])[:, 0, :n]
        stds = (np.asarray(trace.std_attn)[:, 0, :n, 0], np.asarray(trace.std_mlp)[:, 0, :n, 0])
        found.append((states.astype(np.float64), np.asarray(trace.attn, np.float64)[:, 0, :, :n, :n], *stds))
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.long
def test_measures_are_those_of_plain_arrays(tiny, measured):
    for place, (states, attn, one, two) in enumerate(plain_traces(tiny, read_texts("tiny", 5))):
        n = states.shape[1]
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        pairs = (np.einsum("ltd,lsd->l", unit, unit) - n) / (n * (n - 1))
        np.testing.assert_allclose(measured["cosine"][:, place], pairs, atol=1e-5)
        away = np.linalg.norm(states - states.mean(axis=1, keepdims=True), axis=(1, 2))
        np.testing.assert_allclose(
            measured["distance"][:, place], away / np.linalg.norm(states, axis=(1, 2)), rtol=1e-4
        )
        np.testing.assert_allclose(measured["rate"][:, place], away[1:] / away[:-1], rtol=1e-4)
        np.testing.assert_allclose(measured["std_product"][:, place], one.min(axis=1) * two.min(axis=1), rtol=1e-5)
        assert measured["tokens"][place] == n
        assert np.isnan(measured["similarity"][0, place])
        for k in range(1, len(attn)):
            means = [each.mean(axis=0) for each in attn[k - 1 : k + 1]]
            heads = np.mean([cosine(*pair) for pair in zip(*attn[k - 1 : k + 1], strict=True)])
            assert measured["similarity"][k, place] == pytest.approx(cosine(*means), abs=1e-5)
            assert measured["similarity_heads"][k, place] == pytest.approx(heads, abs=1e-5)
            less = cosine(*(mean - 1 / n for mean in means))
            assert measured["similarity_centred"][k, place] == pytest.approx(less, abs=1e-3)


@pytest.fixture(scope="module")
def made_up() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    states = {name: rng.uniform(0, 1, (5, 5)) for name in ("cosine", "distance")}
    return states | {name: rng.uniform(0, 1, (4, 5)) for name in observed.MEASURES[2:]} | {"tokens": np.arange(7.0, 12)}


@pytest.fixture(scope="module")
def out(tmp_path_factory, made_up):
    """A folder whose observed.json has made-up numbers of one model, so that nothing is measured."""
    folder = tmp_path_factory.mktemp("paper")
    entry = {name: values.tolist() for name, values in made_up.items()}
    entry |= {name: [5 * [None], *entry[name][1:]] for name in entry if name.startswith("similarity")}
    cases = [f"minilm-l3, {weights}, 5 of tweets" for weights in observed.WEIGHTS]
    (folder / "observed.json").write_text(json.dumps(dict.fromkeys(cases, entry)))
    return folder


def test_figures_1a_and_3(out, made_up):
    args = observed.Args(models=("minilm-l3",), corpora=("tweets",), limit=5, out=out)
    one = figure_1a.main(args)["cases"]["minilm-l3, trained, tweets"]
    np.testing.assert_allclose(one["mean"], made_up["cosine"].mean(axis=1))
    assert one["rise"] == pytest.approx(one["mean"][-1] - one["mean"][0])
    pairs = figure_3.main(args)["cases"]["minilm-l3, random, tweets"]["similarity"]
    np.testing.assert_allclose(pairs["mean"], made_up["similarity"][1:].mean(axis=1))
    assert pairs["upper"] == pytest.approx(np.mean(pairs["mean"][1:]))  # of three pairs the last two
    for name in ("figure_1a", "figure_3"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"]({name}.png)" in (out / f"{name}.md").read_text(encoding="utf-8")


def test_figure_1a_reads_what_tuning_did_of_the_chosen_rate(tmp_path):
    def run(seed, rate, validation, last, variant="none"):
        whole = {"model": "minilm-l3", "task": "movie-reviews", "variant": variant, "seed": seed}
        states = {"before": {"cosine_similarity": [0.1, 0.2, 0.2, 0.2]}}
        states |= {"after": {"cosine_similarity": [0.1, 0.2, 0.3, last]}}
        scores = {"validation": {"accuracy": validation}, "test": {"accuracy": 0.5}}
        return {**whole, **states, **scores, "settings": {"learning_rate": rate}}

    runs = [run(0, 1e-4, 0.6, 0.9), run(0, 3e-4, 0.7, 0.5), run(1, 3e-4, 0.1, 0.6), run(0, 3e-4, 0.9, 0.1, "gate")]
    entries = {str(k): one for k, one in enumerate(runs)}
    (tmp_path / "tables_2_3.json").write_text(json.dumps({"command": "", "entries": entries}))
    found = figure_1a.tuned(tmp_path)
    assert list(found) == ["minilm-l3, movie-reviews"]
    one = found["minilm-l3, movie-reviews"]
    assert (one["seeds"], one["before"]) == (2, [0.1, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(one["after"], [0.1, 0.2, 0.3, 0.55])
    assert one["spread"][-1] == pytest.approx(np.std([0.5, 0.6], ddof=1), abs=1e-5)
    assert "0.200 | 0.550 ± 0.071" in figure_1a.tuned_lines(found)
    assert figure_1a.tuned(tmp_path / "nothing") == {}


@pytest.mark.long
def test_v_is_the_papers(tiny):
    model, tokenizer = tiny
    texts = read_texts("tiny", 2)
    found = bounds.bounds(model, tokenizer, texts, lambda batch: std.changed_std(1, 0), ("L1",))
    s = max(np.linalg.norm(np.asarray(kernel, np.float64), 2, axis=(-2, -1)).max()
            for kernel in (model.blocks.up.kernel, model.blocks.down.kernel))  # fmt: skip
    value, output = (np.asarray(getattr(model.blocks.attn, n).kernel, np.float64) for n in ("value", "output"))
    s = max(s, np.linalg.norm(np.einsum("ldnh,lnhe->lnde", value, output), 2, axis=(-2, -1)).max())
    for place, (_, attn, one, two) in enumerate(plain_traces(tiny, texts)):
        mixing = np.linalg.norm(attn - attn.mean(axis=-2, keepdims=True), 2, axis=(-2, -1)).max()
        v = (1 + s * s) * (1 + mixing * model.config.heads * s) / (one.min(axis=1) * two.min(axis=1))
        np.testing.assert_allclose(found["v"][:, place], v, rtol=1e-4)
    assert (found["actual"] <= found["L0"]).all()


def test_correlations_follow_the_claim():
    rng = np.random.default_rng(0)
    product = rng.uniform(1, 2, (2, 40))
    rate = np.stack([1 / product[0], product[1]])
    cosines = np.concatenate([np.zeros((1, 40)), np.cumsum(product, axis=0)])
    found = {"std_product": product, "rate": rate, "cosine": cosines, "tokens": rng.integers(5, 9, 40).astype(float)}
    result = std.correlations(found, draws=20)
    np.testing.assert_allclose(result["rate_value"][0], [-1, 1])
    np.testing.assert_allclose(result["cosine_value"][0], [1, 1])
    assert result["rate_draws"].shape == (20, 2)
    layers = {"m": {"rate": {"low": [-0.5, 0.2, -0.1], "high": [-0.1, 0.6, 0.1]}}}
    assert std.tally(layers) == {"layers": 3, "as_claimed": 1, "opposite": 1}


def test_the_probe_finds_what_is_linear():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 5, 400)
    states = np.eye(5)[label] @ rng.standard_normal((5, 12)) + 0.01 * rng.standard_normal((400, 12))
    text = np.repeat(np.arange(40), 10)
    assert probes.accuracy(states, text, label) == (1, 1, 1)
    right, low, high = probes.accuracy(states, text, rng.permutation(label))
    assert 0.05 < low < right < high < 0.4


def test_smoothing_to_a_given_cosine():
    rng = np.random.default_rng(2)
    text = np.repeat(np.arange(6), [3, 5, 4, 8, 2, 6])
    states = rng.standard_normal((len(text), 16)) + 0.5
    for gap in (0.1, 1e-9):
        found = probes.smoothed(states, text, gap)
        assert probes.mean_gap(found, text) == pytest.approx(gap, rel=1e-3)
        for k in range(6):
            np.testing.assert_allclose(found[text == k].mean(axis=0), states[text == k].mean(axis=0), atol=1e-12)
    own = []
    for k in range(6):
        unit = states[text == k] / np.linalg.norm(states[text == k], axis=1, keepdims=True)
        own.append((np.sum(unit @ unit.T) - len(unit)) / (len(unit) * (len(unit) - 1)))
    assert probes.mean_gap(states, text) == pytest.approx(1 - np.mean(own), rel=1e-9)


def test_what_the_probe_is_asked():
    found = {"id": np.array([1, 7, 8, 7, 1, 7, 9, 1, 5]), "text": np.array([0, 0, 0, 1, 1, 1, 1, 2, 2]),
             "position": np.array([0, 1, 2, 0, 1, 2, 3, 0, 1])}  # fmt: skip
    # 1 stands in every text that is fitted on (0 and 2); 9 in none of them; 7 is special.
    assert probes.labels(found, "id", frozenset({7})).tolist() == [-1, -1, 1, -1, -1, -1, -1, -1, 0]
    assert probes.labels(found, "position", frozenset()).tolist() == [-1, 0, 1, -1, 0, 1, 2, -1, 0]


@pytest.mark.parametrize("kind", [kind for kind in replaced_rows.ROWS if kind != "own"])
def test_rows_in_attentions_place_are_stochastic(tiny, kind):
    _, tokenizer = tiny
    batch = tokenizer(["A film worth seeing twice.", "Dull."])
    size = batch.mask.shape[1]
    attn = jax.nn.softmax(jnp.where(batch.mask[:, None, None], jnp.arange(float(size)), -jnp.inf), axis=-1)
    attn = jnp.broadcast_to(attn, (2, 3, size, size)).astype(jnp.float32)
    found = np.asarray(replaced_rows.rows_edit(kind, batch).attn(jnp.int32(1), attn))
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    assert (found >= 0).all()
    assert not found.transpose(0, 3, 1, 2)[~np.asarray(batch.mask)].any()
    if kind == "permuted":
        np.testing.assert_allclose(np.sort(found), np.sort(attn))
        assert not np.allclose(found, attn)


def test_distances_under_a_graph_convolution(tiny):
    """Two texts in one batch, one of them padded; every head's subspace from its scores, in numpy."""
    model, tokenizer = tiny
    attn = model.blocks.attn  # its attention is nearly uniform: with larger scores the two subspaces are two
    query = dataclasses.replace(attn.query, kernel=300 * attn.query.kernel)
    model = dataclasses.replace(
        model, blocks=dataclasses.replace(model.blocks, attn=dataclasses.replace(attn, query=query))
    )
    batch = tokenizer(["A film worth seeing twice.", "Dull."])
    found = {name: np.asarray(value) for name, value in convolution.measures("ResGCN", model, batch).items()}
    edits = convolution.FORMS["ResGCN"](model, batch)
    hidden, logits = jaxsmooth.encode(model, batch, edits=edits, collect=lambda t: (t.hidden, t.attn_logits))[1]
    for b, n in enumerate(np.asarray(batch.mask).sum(axis=1)):
        h, s = np.asarray(hidden, np.float64)[:, b, :n], np.asarray(logits, np.float64)[:, b, :, :n, :n]
        roots = np.sqrt(np.exp(s).sum(axis=-1))  # [L N n]
        roots /= np.linalg.norm(roots, axis=-1, keepdims=True)
        away = h[:, None] - roots[..., None] * np.einsum("lnt,ltd->lnd", roots, h)[:, :, None]
        own = np.linalg.norm(away, axis=(2, 3)).min(axis=1) / np.linalg.norm(h, axis=(1, 2))
        np.testing.assert_allclose(found["own"][:, b], own, rtol=1e-5)
        equal = np.linalg.norm(h - h.mean(axis=1, keepdims=True), axis=(1, 2)) / np.linalg.norm(h, axis=(1, 2))
        np.testing.assert_allclose(found["equal"][:, b], equal, rtol=1e-5)
        assert (np.abs(own - equal) > 1e-3).any()


def test_the_printed_lemma_is_broken_and_the_mended_one_is_not():
    # lambda is .00673 with e = (1, 1), .0100 with e of norm 1, and d_M falls by .1 for H = (1, -1).
    assert replaced_rows.breaks(np.array([[0.9, 0.1], [0.8, 0.2]])) == {"printed": True, "normalised": False}
    found = [replaced_rows.breaks(np.random.default_rng(seed).dirichlet(np.full(5, 0.5), 5)) for seed in range(20)]
    assert not any(one["normalised"] for one in found)
    assert sum(one["printed"] for one in found) > 15
    assert replaced_rows.breaks(np.full((4, 4), 0.25)) == {
        "printed": False,
        "normalised": False,
    }  # all tokens equal at once


def test_distance_of_rows_of_one_norm():
    x = np.random.default_rng(3).standard_normal((7, 5))
    x = 3 * x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (np.sum(x @ x.T) / 9 - 7) / 42
    expected = np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x)
    assert criticisms.of_equal_norms(cosines, np.array(7.0)) == pytest.approx(expected, rel=1e-12)


# Neighbours


def test_area_counts_pairs():
    rng = np.random.default_rng(4)
    scores, same = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[same] for b in scores[~same]]
    assert softdecay.area(scores, same) == pytest.approx(np.mean(pairs))


def test_scores_of_embeddings():
    embeddings, topics = np.eye(3)[[0, 0, 1, 2]], np.array([5, 5, 6, 7])
    assert softdecay.topic_score(embeddings, topics, np.arange(4)) == 1
    # Of a text that is drawn twice the pair with itself is left out: it would count as the same topic.
    assert softdecay.topic_score(embeddings, np.array([5, 6, 6, 7]), np.array([0, 1, 2, 2])) == pytest.approx(1 / 3)
    rows = np.concatenate([np.eye(3)[[0, 0, 1]], np.eye(3)[[2, 0, 1]]])
    assert softdecay.choice_score(rows, np.array([0, 1]), np.array([0, 1])) == 0.5
    assert softdecay.choice_score(rows, np.array([0, 1]), np.array([0, 0])) == 1


def test_counts_of_the_rules():
    row = {"strength": softdecay.PUBLISHED, "low": 0.1, "high": 0.2}
    cases = {
        "a, x": {"rows": [row]},
        "b, x": {"rows": [row | {"low": -0.2, "high": -0.1}]},
        "a random, x": {"rows": [row]},
    }
    assert softdecay.tally(cases) == {"cases": 2, "better": 1, "worse": 1}
    one = {"weights": "trained", "model": "m", "corpus": "movie-reviews", "own": [0.1, 0.5], "rank_correlation": 1.0,
           "rise": 0.4, "rise_error": 0.1}  # fmt: skip
    repeated = {"m": {"layers": 2, "blocks": [{"own": [0.1, 0.6, 0.2]}, {"own": [0.9, 0.4, 0.9]}]}}
    found = projection.tally({"a": one, "b": one | {"weights": "random"}}, repeated)
    assert found == {"cases": 1, "grow": 1, "fall": 0, "repeated": 2, "above_own_last": 1}


@pytest.mark.long
def test_a_removed_direction_is_gone(tiny):
    model, tokenizer = tiny
    frames = projection.random_frames(np.stack([np.eye(64)[:2], *(np.eye(64)[:1].repeat(2, 0) * [[1], [0]],) * 3]))
    np.testing.assert_allclose(frames[0] @ frames[0].T, np.eye(2), atol=1e-12)
    assert not frames[1:, 1].any()
    edits = projection.removal(jnp.asarray(frames, jnp.float32))
    found = projection.projected(model, tokenizer, ["A film worth seeing.", "Dull."], frames, edits)
    plain = projection.projected(model, tokenizer, ["A film worth seeing.", "Dull."], frames, jaxsmooth.Edits())
    assert found["own"].max() < 1e-5 < plain["own"].min()
    _, trace = jaxsmooth.encode(model, tokenizer(["Dull."]))
    n = int(tokenizer(["Dull."]).mask.sum())
    x = np.asarray(trace.hidden, np.float64)[2, 0, :n]
    expected = np.mean(np.linalg.norm(x @ frames[2].T, axis=1) / np.linalg.norm(x, axis=1))
    assert plain["own"][2, 1] == pytest.approx(expected, rel=1e-4)
