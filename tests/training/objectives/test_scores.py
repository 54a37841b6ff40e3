"""Scores against formulas written out from their definitions, counted in any order and in parts."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import TOKENIZER, fake_batch, make_data, make_task

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.data.tasks import Sentence
from jaxsmooth.training.evaluate import make_scores
from jaxsmooth.training.objectives.scores import ChoiceScores, ClassScores, NumberScores, TokenScores, masked_lm_outputs


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[classes]


def count_in_parts(make, outputs, labels, weights=None, parts: int = 3):
    """The result of one account, checked to equal that of accounts of parts brought together as JSON."""
    weights = np.ones(len(labels)) if weights is None else weights
    whole, total = make(), make()
    whole.update(outputs, fake_batch(labels, weights))
    for chosen in np.array_split(np.random.default_rng(0).permutation(len(labels)), parts):
        part = make()
        if len(chosen):
            part.update(outputs[chosen], fake_batch(np.asarray(labels)[chosen], weights[chosen]))
        total.add_state(json.loads(json.dumps(part.get_state())))
    result, together = whole.result(), total.result()
    assert result.keys() == together.keys()
    for name, value in result.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-12, atol=1e-15)
    return result


def f1_by_definition(labels, predictions, one) -> float:
    counted = [(a == one, b == one) for a, b in zip(labels, predictions, strict=True)]
    hits = sum(a and b for a, b in counted)
    if not hits:
        return 0.0
    precision, recall = hits / sum(b for _, b in counted), hits / sum(a for a, _ in counted)
    return 2 * precision * recall / (precision + recall)


def matthews_by_definition(labels, predictions, count) -> float:
    """Correlation of the one-hot codes, as Gorodkin defines it: covariances summed over classes."""
    x, y = one_hot(predictions, count), one_hot(labels, count)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    spread = math.sqrt((x * x).sum() * (y * y).sum())
    return (x * y).sum() / spread if spread else 0.0


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(pairs)
def test_class_scores(drawn):
    labels, predictions = np.array(drawn).T
    result = count_in_parts(lambda: ClassScores(4), one_hot(predictions, 4), labels)
    assert result["accuracy"] == pytest.approx(np.mean(labels == predictions), abs=1e-15)
    occurring = sorted(set(labels) | set(predictions))
    expected = np.mean([f1_by_definition(labels, predictions, one) for one in occurring])
    assert result["f1"] == pytest.approx(expected, abs=1e-12)
    assert result["matthews"] == pytest.approx(matthews_by_definition(labels, predictions, 4), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_binary_scores(drawn):
    labels, predictions = np.array(drawn, int).T
    result = count_in_parts(lambda: ClassScores(2, positive=1), one_hot(predictions, 2), labels)
    if labels.any() or predictions.any():
        assert result["f1"] == pytest.approx(f1_by_definition(labels, predictions, 1), abs=1e-12)
    else:
        assert math.isnan(result["f1"])
    if len(set(labels)) == 2 and len(set(predictions)) == 2:
        # With two classes it is the ordinary correlation.
        assert result["matthews"] == pytest.approx(scipy.stats.pearsonr(labels, predictions)[0], abs=1e-12)
    else:
        assert result["matthews"] == 0


def test_f1_of_one_class_is_not_the_mean():
    labels, predictions = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    scores = [ClassScores(2, positive=positive) for positive in (1, 0, None)]
    for score in scores:
        score.update(one_hot(predictions, 2), fake_batch(labels))
    assert [round(score.result()["f1"], 4) for score in scores] == [0.8, 0.6667, 0.7333]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return (x @ y) / math.sqrt((x @ x) * (y @ y))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def test_correlations_by_definition():
    rng = np.random.default_rng(1)
    values = rng.normal(size=80)
    labels = np.round(values + rng.normal(size=80), 1).astype(np.float32)  # with ties
    result = count_in_parts(NumberScores, values, labels)
    labels = labels.astype(float)
    assert len(set(labels)) < 80
    assert result["pearson"] == pytest.approx(correlation(values, labels), rel=1e-12)
    assert result["spearman"] == pytest.approx(correlation(mean_ranks(values), mean_ranks(labels)), rel=1e-12)
    assert result["mse"] == pytest.approx(np.mean((values - labels) ** 2), rel=1e-12)


def test_correlation_far_from_zero_keeps_its_digits():
    values = 1e6 + np.array([0.0, 1, 2, 4])
    labels = np.array([0, 1, 2, 4], np.float32)
    scores = NumberScores()
    scores.update(values, fake_batch(labels))
    assert scores.result()["pearson"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("values", "labels"), [([1, 1, 1], [1, 2, 3]), ([1, 2], [0.1, 0.1]), ([1], [1])])
def test_correlation_with_a_constant_is_nan_without_a_warning(values, labels):
    scores = NumberScores()
    scores.update(np.array(values, float), fake_batch(np.array(labels, np.float32)))
    assert math.isnan(scores.result()["pearson"])
    assert math.isnan(scores.result()["spearman"])


def test_rows_without_weight_or_label_count_for_nothing():
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(9, 3)), rng.integers(0, 3, 9)
    plain = ClassScores(3)
    plain.update(logits[:6], fake_batch(labels[:6]))
    padded = ClassScores(3)
    padded.update(logits, fake_batch(np.where(np.arange(9) == 8, -1, labels), [1] * 6 + [0, 0, 1]))
    assert padded.result() == plain.result()
    numbers = NumberScores()
    numbers.update(np.arange(4.0), fake_batch(np.array([1, 5, 2, np.nan], np.float32), [1, 1, 0, 1]))
    assert numbers.result()["mse"] == (1 + 16) / 2


def test_choice_has_accuracy_alone():
    assert count_in_parts(lambda: ChoiceScores(3), np.eye(3), np.array([0, 1, 1])) == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize("make", [lambda: ClassScores(2), NumberScores, lambda: TokenScores(each_token=False)])
def test_nothing_counted_is_refused(make):
    with pytest.raises(DataError, match="was counted"):
        make().result()


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match=r"logits must have shape \(2, 3\); got \(2, 2\)"):
        ClassScores(3).update(np.zeros((2, 2)), fake_batch([0, 1]))
    with pytest.raises(DataError, match="below the number of classes, 2; got 2"):
        ClassScores(2).update(np.zeros((2, 2)), fake_batch([0, 2]))
    with pytest.raises(DataError, match="values must have shape"):
        NumberScores().update(np.zeros((2, 1)), fake_batch(np.zeros(2, np.float32)))


def test_a_model_that_diverged_is_not_scored_as_if_it_guessed():
    bad = np.full((2, 3), np.nan)
    for make, outputs, labels in (
        (lambda: ClassScores(3), bad, [0, 1]),
        (NumberScores, bad[:, 0], np.zeros(2, np.float32)),
        (lambda: TokenScores(each_token=False), (bad, bad > 0), np.array([[1, -1, -1], [-1, 2, -1]])),
    ):
        with pytest.raises(DataError, match="hold NaN, so there is nothing to score"):
            make().update(outputs, fake_batch(labels))
        scores = make()  # filler rows may hold NaN
        scores.update(outputs, fake_batch(labels, [0, 0]))
        with pytest.raises(DataError, match="was counted"):
            scores.result()


def test_masked_lm_outputs_against_scipy():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(2, 4, 7)) * 5, np.array([[-1, 2, 6, -1], [0, -1, 3, 3]])
    labels[1, 2] = logits[1, 2].argmax()
    log_probs, right = jax.jit(masked_lm_outputs)(jnp.asarray(logits), jnp.asarray(labels, jnp.int32))
    expected = scipy.special.log_softmax(logits, axis=-1)
    for place in np.ndindex(2, 4):
        label = labels[place]
        assert log_probs[place] == pytest.approx(expected[place][label] if label >= 0 else 0.0, abs=1e-12)
        assert bool(right[place]) == (label >= 0 and logits[place].argmax() == label)


def test_pseudo_perplexity_by_hand():
    """A made-up model, whose probability of a token follows from the sentence's other tokens alone."""
    texts = ["ab c", "b", "cab abc"]
    data = TaskData(make_task("masked_lm"), "train", [Sentence(text) for text in texts], TOKENIZER, 48, each_token=True)
    vocab, special = TOKENIZER.config.vocab, TOKENIZER.special_ids

    def model(ids: list[int]) -> np.ndarray:
        others = sorted(number for number in ids if number not in special)
        rng = np.random.default_rng(others)
        return rng.normal(size=(len(ids), vocab))

    total, count = 0.0, 0
    for row in TOKENIZER.rows(texts, length=48):
        for place, number in enumerate(row.ids):
            if number not in special:
                ids = [*row.ids[:place], TOKENIZER.mask_id, *row.ids[place + 1 :]]
                total += scipy.special.log_softmax(model(ids)[place])[number]
                count += 1
    assert count == len(data) == 10

    scores = make_scores(data)
    with make_stream(data, batch_size=4, shuffle=False, epochs=1) as stream:
        for batch in stream:
            length = batch.batch.tokens.shape[1]
            logits = np.zeros((4, length, vocab))
            for place, (row, mask) in enumerate(zip(batch.batch.tokens, batch.batch.mask, strict=True)):
                logits[place, mask] = model(row[mask].tolist())
            asked = np.take_along_axis(logits, batch.labels.places[..., None], axis=1)
            scores.update(masked_lm_outputs(jnp.asarray(asked), jnp.asarray(batch.labels.tokens)), batch)
    result = scores.result()
    assert result["pseudo_perplexity"] == pytest.approx(math.exp(-total / count), rel=1e-12)
    assert result["log_likelihood"] == pytest.approx(total / count, rel=1e-12)


def test_perplexity_of_a_diverged_model_is_infinite():
    scores = TokenScores(each_token=False)
    scores.update((np.full((1, 3), -1e4), np.zeros((1, 3), bool)), fake_batch(np.array([[5, -1, 2]], np.int32)))
    assert scores.result() == {"masked_perplexity": math.inf, "log_likelihood": -1e4, "accuracy": 0.0}


def test_each_kind_has_its_scores():
    kinds = {
        "classification": ClassScores,
        "regression": NumberScores,
        "choice": ChoiceScores,
        "masked_lm": TokenScores,
    }
    assert all(type(make_scores(make_data(kind))) is expected for kind, expected in kinds.items())
