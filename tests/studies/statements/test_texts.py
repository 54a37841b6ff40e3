"""What `diagnose` says of other texts: from known values and a run, in words, in JSON, on the page, in a file."""

import csv
import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from rich.console import Console
from support.report import synthetic

import jaxsmooth
from jaxsmooth import report
from jaxsmooth.assets import read_texts, sample_texts
from jaxsmooth.cli.main import main
from jaxsmooth.errors import TextError
from jaxsmooth.report.texts import length_words, texts_section, texts_words
from jaxsmooth.results.texts import KeptTexts
from jaxsmooth.studies.statements.lengths import embedding_similarity, length_groups, length_trend
from jaxsmooth.studies.statements.texts import text_statements
from jaxsmooth.theory import clopper_pearson1934_limits


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures and the page, which take most of the time, are other files' matter."""
    monkeypatch.setattr("jaxsmooth.report.figures.write_figures", lambda *_, **__: {})
    monkeypatch.setattr("jaxsmooth.report.page.render_page", lambda diagnosis, **_: str(texts_section(diagnosis.texts)))


def known(contractions, *, each_text: bool = False):
    """Two hidden states whose distances have these quotients; the first text stands in consensus at the start."""
    contractions = np.array([math.nan, *contractions])
    kept = KeptTexts()
    distance = np.stack([np.where(np.isnan(contractions), 0, 2), np.nan_to_num(2 * contractions)])
    cosine = np.stack([np.full(len(contractions), 0.5), np.full(len(contractions), 0.9)])
    measured = {"subspace_distance": distance, "actual": contractions[None], "cosine_similarity": cosine}
    measured["tokens"] = np.arange(2, 2 + len(contractions))[None]
    kept.add(measured, np.arange(len(contractions)))
    return text_statements(kept, each_text=each_text)


def test_statements_of_known_values():
    found = known(np.linspace(0.1, 0.9, 100))
    whole, rate, first, last = found.rows
    assert (whole.quantity, whole.layer, whole.texts, whole.exceeding, whole.level) == ("contraction", None, 100, 0, 1)
    assert whole.share_at_most == clopper_pearson1934_limits(0, 100).at_most
    # Of 100 values the 97th smallest bounds 95 % with confidence; the 96th the next: exact ranks.
    ordered = np.linspace(0.1, 0.9, 100)
    assert (whole.most_below, whole.next_below) == (ordered[98], ordered[95])
    assert (whole.most_above, whole.next_above) == (ordered[1], ordered[4])
    assert (rate.layer, first.layer, last.layer) == (1, 0, 1)
    assert (first.exceeding, last.exceeding, last.share_at_most) == (0, 101, 1)
    assert (found.read, found.kept, found.values) == (101, 101, {})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5] * 299, "None of the 299 texts end farther from consensus than the embedding left them, so with "
         "confidence 95 % at most 1.00 % of such texts do."),
        ([2.0, *[0.5] * 99], "1 of the 100 texts end farther .* at most 4.7 % of such texts do."),
        ([2.0] * 59, "All 59 texts end farther .* at least 95.0 % of such texts do."),
        ([*[2.0] * 60, *[0.5] * 40], "60 of the 100 texts .* at least 51 % of such texts do."),
        ([0.5], "None of the 1 texts .* at most 95.0 % of such texts do. The texts are too few"),
        ([], "No text has a distance"),
    ],
)  # fmt: skip
def test_words(values, words):
    assert re.match(words, texts_words(known(values)))


def ranks(values):
    """Of equal values the mean of their ranks."""
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def test_a_trend_with_the_length():
    rng = np.random.default_rng(3)
    tokens = rng.integers(3, 12, 60).astype(float)
    values = np.round(0.1 * np.log2(tokens) + 0.1 * rng.standard_normal(60), 2)
    whole = length_trend("similarity", np.append(values, math.nan), np.append(tokens, 99.0))
    assert whole.spearman == pytest.approx(np.corrcoef(ranks(tokens), ranks(values))[0, 1], rel=1e-12)
    assert whole.per_doubling == pytest.approx(np.polyfit(np.log2(tokens), values, 1)[0], rel=1e-10)
    assert (whole.texts, whole.shortest, whole.longest) == (60, tokens.min(), tokens.max())
    shuffled = [length_trend("", rng.permutation(values), tokens) for _ in range(400)]
    # If nothing goes with the length, p is uniform: 20 of 400 below 0.05, with a standard deviation of 4.4.
    assert abs(sum(trend.p_value < 0.05 for trend in shuffled) - 20) < 5 * 4.4
    as_far = sum(abs(trend.spearman) >= abs(whole.spearman) for trend in shuffled)
    assert abs(as_far - 400 * whole.p_value) < 5 * math.sqrt(400 * whole.p_value)


@pytest.mark.parametrize(
    ("values", "tokens"), [([0.1, 0.2], [3, 4]), ([0.1, 0.2, 0.3], [5, 5, 5]), ([0.1] * 3, [3, 4, 5]), ([], [])]
)
def test_no_trend_of_few_texts_or_of_one_length(values, tokens):
    trend = length_trend("cosine_similarity", np.array(values), np.array(tokens, float))
    assert math.isnan(trend.spearman)
    assert math.isnan(trend.p_value)
    assert length_words(dataclasses.replace(known([0.5]), lengths=(trend,))) == ""


@pytest.mark.parametrize(
    ("slope", "words"),
    [(0.1, "rises with the number of tokens .*1.00.*: by 0.100 for twice as many"), (-0.1, "falls .*-1.00"),
     (0, "shows no clear trend")],
)  # fmt: skip
def test_the_length_in_words(slope, words):
    tokens = np.arange(4.0, 24)
    values = slope * np.log2(tokens) if slope else np.cos(np.pi * tokens)
    trend = length_trend("cosine_similarity", values, tokens)
    found = length_words(dataclasses.replace(known([0.5]), lengths=(trend,)))
    assert found.startswith("Over 20 texts of 4 to 23 tokens, the last layer's cosine similarity ")
    assert re.search(words, found)


def embeddings(rng, texts, together):
    """Unit vectors [D n] of texts of 4 to 40 tokens, the longer the nearer to one direction, if `together`."""
    tokens = rng.integers(4, 41, texts)
    pull = np.where(together, tokens / 10, 1)[:, None]
    x = rng.standard_normal((texts, 16)) + pull * np.eye(16)[0]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).T, tokens


def test_embeddings_of_long_texts_that_lie_together_are_seen():
    rng = np.random.default_rng(0)
    directions, tokens = embeddings(rng, 60, True)
    directions[:, 7] = 0
    similar = embedding_similarity(directions)
    cosines = directions.T @ directions
    kept = np.arange(60) != 7
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(similar[kept], cosines[kept].sum(axis=1) / 58, rtol=1e-12)
    assert math.isnan(similar[7])
    groups = length_groups(directions, tokens)
    assert sum(group.texts for group in groups) == 59
    bounds = [(group.shortest, group.longest) for group in groups]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(bounds))
    for group in groups:
        inside = kept & (tokens >= group.shortest) & (tokens <= group.longest)
        pairs = inside.sum() * (inside.sum() - 1)
        assert group.similarity == pytest.approx(cosines[np.ix_(inside, inside)].sum() / pairs, rel=1e-12)
    assert [group.similarity for group in groups] == sorted(group.similarity for group in groups)
    trend = length_trend("embedding_similarity", similar, tokens.astype(float))
    assert trend.spearman > 0.5
    assert trend.p_value < 1e-6
    # Similarities of one text share others' directions; p is right all the same if lengths are drawn by themselves.
    shuffled = [length_trend("", similar, rng.permutation(tokens).astype(float)).p_value for _ in range(400)]
    assert abs(sum(p < 0.05 for p in shuffled) - 20) < 5 * 4.4
    loose, tokens = embeddings(rng, 400, False)
    assert length_trend("", embedding_similarity(loose), tokens.astype(float)).p_value > 0.001


def test_embeddings_of_few_texts_and_of_one_length():
    assert np.isnan(embedding_similarity(np.eye(3)[:, :1])).all()
    assert length_groups(np.zeros((3, 2)), np.array([4, 5])) == ()
    (one,) = length_groups(np.eye(3), np.array([5, 5, 5]))
    assert (one.texts, one.shortest, one.longest, one.similarity) == (3, 5, 5, 0)


def test_the_embeddings_in_words_and_numbers():
    rng, kept = np.random.default_rng(1), KeptTexts()
    directions, tokens = embeddings(rng, 80, True)
    kept.add({"embedding": directions, "tokens": tokens[None]}, np.arange(80))
    own = KeptTexts()
    values = {"subspace_distance": np.ones((2, 80)), "actual": np.ones((1, 80)), "cosine_similarity": np.ones((2, 80))}
    own.add({**values, "tokens": tokens[None]}, np.arange(80))
    found = text_statements(own, each_text=False, embedded=kept)
    assert [trend.quantity for trend in found.lengths] == ["cosine_similarity", "contraction", "embedding_similarity"]
    words = length_words(found)  # of tokens there is nothing to say
    assert re.fullmatch(
        r"Over 80 texts of 4 to 40 tokens, the mean cosine of a text's embedding, .* with the others' rises .*"
        r" Two of the shortest texts have 0\.\d+ \(4 to \d+ tokens\), two of the longest 0\.\d+ \(\d+ to 40 tokens\)\.",
        words,
    )
    written = report.texts.texts_json(found)
    assert [group["texts"] for group in written["length_groups"]] == [group.texts for group in found.groups]
    assert text_statements(own, each_text=False, embedded=KeptTexts()).groups == ()


def test_limits_in_words_are_rounded_to_the_safe_side():
    from jaxsmooth.report.texts import _outwards, _percent

    rng = np.random.default_rng(0)
    for value in 10 ** rng.uniform(-6, 6, 200):
        assert value * (1 - 1e-11) <= _outwards(value) <= 1.0101 * value
        assert -value * (1 + 1e-11) <= _outwards(-value)
    for share in [*rng.uniform(0, 1, 200), 1e-9, 1 - 1e-9, 0.0, 1.0]:
        low, high = (float(_percent(share, up=up).split()[0]) for up in (False, True))
        assert low - 1e-9 <= 100 * share <= high + 1e-9
        assert 0 <= low <= high <= 100


@pytest.mark.long
def test_a_real_run():
    model, tokenizer = jaxsmooth.load("tiny")
    found = jaxsmooth.diagnose(model, tokenizer, read_texts("tiny", 6), each_text=True)
    own = found.texts
    assert (own.read, own.kept, own.places.tolist()) == (6, 6, list(range(6)))
    assert len(own.rows) == 1 + model.config.layers + model.config.layers + 1
    assert own.values["rate"].mean(axis=1) == pytest.approx(found.rates["actual"].mean, rel=1e-6)
    assert own.values["cosine_similarity"].mean(axis=1) == pytest.approx(found.cosine_similarity.mean, rel=1e-6)
    assert own.values["contraction"][0] == pytest.approx(own.values["rate"].prod(axis=0), rel=1e-5)
    assert jaxsmooth.diagnose(model, tokenizer, ["A film."]).texts.values == {}
    texts = read_texts("tiny", 6)
    batches = [tokenizer([text]) for text in texts]
    means = np.stack(
        [np.asarray(jaxsmooth.encode(model, batch)[0])[0][batch.mask[0]].mean(axis=0) for batch in batches]
    )
    cosines = means @ means.T / np.outer(*2 * [np.linalg.norm(means, axis=1)])
    similar = (cosines.sum(axis=1) - 1) / 5
    tokens = [int(batch.mask.sum()) for batch in batches]
    assert own.lengths[2].spearman == pytest.approx(length_trend("", similar, np.array(tokens, float)).spearman)


def test_what_is_written_and_shown(tmp_path, no_pictures):
    own = known(np.linspace(0.1, 0.9, 5), each_text=True)
    found = dataclasses.replace(synthetic(), texts=own)
    paths = report.write_diagnosis(found, tmp_path)
    rows = list(csv.DictReader(io.StringIO(paths["values"].read_text(encoding="utf-8"))))
    assert [row["contraction"] for row in rows] == ["", *(repr(x) for x in own.values["contraction"][0, 1:].tolist())]
    assert [int(row["text"]) for row in rows] == list(range(6))
    assert list(rows[0]) == ["text", "contraction", "rate_1", "cosine_similarity_0", "cosine_similarity_1", "tokens"]
    written = json.loads(paths["numbers"].read_text(encoding="utf-8"))["texts"]
    assert len(written["statements"]) == 4
    assert written["statements"][0]["most_below"] is None  # so few texts bound nothing
    similarity, contraction = written["lengths"]
    assert (similarity["spearman"], similarity["texts"]) == (None, 6)  # it is the same in all of them
    assert (contraction["spearman"], contraction["texts"], contraction["longest"]) == (pytest.approx(1), 5, 7)
    page = paths["report"].read_text(encoding="utf-8")
    assert "What this says of other texts" in page
    assert page.count("<tr>") == 5
    out = io.StringIO()
    report.print_diagnosis(found, Console(file=out, width=200))
    assert "And other texts? " in out.getvalue()
    assert "random draws" in out.getvalue()


def test_without_statements_there_is_no_section():
    assert texts_section(None) == ""
    assert "texts" not in report.to_json(synthetic())


def test_a_random_sample():
    everything = read_texts("tiny")
    counts = dict.fromkeys(everything, 0)
    for seed in range(200):
        drawn = sample_texts("tiny", 3, seed)
        assert [text for text in everything if text in drawn] == drawn
        for text in drawn:
            counts[text] += 1
    expected = 600 / len(everything)
    assert max(abs(count - expected) for count in counts.values()) < 5 * math.sqrt(expected)
    assert sample_texts("tiny", 10**6, 0) == everything
    with pytest.raises(TextError, match="a random sample needs a limit"):
        sample_texts("tiny", None, 0)


def test_the_command_draws_a_sample(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("jaxsmooth.studies.diagnose.diagnose", lambda model, tokenizer, texts, **options: asked.update(
        options, texts=list(texts)
    ))  # fmt: skip
    for step in ("write_diagnosis", "print_diagnosis"):
        monkeypatch.setattr(report, step, lambda *arguments, **options: {})
    arguments = ["diagnose", "tiny", "--data", "tiny", "--limit", "2", "--sample", "5", "--out", str(tmp_path)]
    assert main([*arguments, "--each-text"]) == 0
    assert asked["data"] == "tiny (drawn at random, seed 5)"
    assert asked["texts"] == sample_texts("tiny", 2, 5)
    assert asked["each_text"]
    assert main(arguments[:6] + arguments[8:]) == 0
    assert (asked["data"], asked["texts"], asked["each_text"]) == ("tiny", read_texts("tiny", 2), False)
