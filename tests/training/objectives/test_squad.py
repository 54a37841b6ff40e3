"""Answers from logits, windows of long contexts, and SQuAD's exact match and F1."""

import json
import re
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import TOKENIZER, make_data, make_task

from jaxsmooth.errors import DataError
from jaxsmooth.inputs.batching import Row
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.data.tasks import Question
from jaxsmooth.training.evaluate import make_scores
from jaxsmooth.training.objectives.squad import ANSWER_TOKENS, best_span, exact_match, normalise_answer, token_f1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("an  apple-pie, a day", "applepie day"),
        ("theatre of the anthem", "theatre of anthem"),
        ("A.", ""),
        ("Zürich–Bern", "zürich–bern"),  # only ASCII punctuation counts
    ],
)
def test_normalisation(text, expected):
    assert normalise_answer(text) == expected


def f1_by_definition(answer: str, gold: str) -> float:
    """Precision and recall of words, each word used up once."""
    answer, left = answer.split(), gold.split()
    count, hits = len(left), 0
    for word in answer:
        if word in left:
            left.remove(word)
            hits += 1
    if not hits:
        return float(not answer and not count)
    precision, recall = hits / len(answer), hits / count
    return 2 * precision * recall / (precision + recall)


@given(
    st.lists(st.sampled_from(["x", "y", "z", "xy"]), max_size=6), st.lists(st.sampled_from(["x", "y", "z"]), max_size=6)
)
def test_f1_of_words(answer, gold):
    answer, gold = " ".join(answer), " ".join(gold)
    assert token_f1(answer, [gold]) == pytest.approx(f1_by_definition(answer, gold), abs=1e-15)


def test_the_best_gold_counts_and_silence_where_there_is_none():
    assert token_f1("red fish", ["one fish", "red fish"]) == exact_match("red fish", ["one", "The red fish."]) == 1
    assert (exact_match("", []), exact_match("x", []), token_f1("x", [])) == (1, 0, 0)
    assert exact_match("", ["x"]) == 0
    assert exact_match("", ["the", "x"]) == 0  # a gold of nothing but an article is no way out


@given(st.integers(0, 10**6))
def test_best_span_against_every_span(seed):
    rng = np.random.default_rng(seed)
    starts, ends = rng.normal(size=(2, 12))
    spans = ((-1, -1), (-1, -1), *((3 * k, 3 * k + 2) for k in range(8)), (-1, -1))
    row = Row(list(range(11)), [0] * 11, truncated=False, spans=spans)
    first, last, score = best_span(starts, ends, row)
    allowed = [(starts[a] + ends[b], a, b) for a, b in product(range(2, 10), repeat=2) if a <= b]
    expected, a, b = max(allowed)
    assert (first, last) == (spans[a][0], spans[b][1])
    assert score == pytest.approx(expected, abs=1e-12)


def test_best_span_has_a_longest_length_and_needs_a_context():
    count = ANSWER_TOKENS + 5
    starts, ends = np.zeros(count), np.zeros(count)
    starts[0] = ends[-1] = 10.0
    starts[3] = 4.0
    row = Row(list(range(count)), [1] * count, truncated=False, spans=tuple((k, k + 1) for k in range(count)))
    first, last, score = best_span(starts, ends, row)
    assert last - first <= ANSWER_TOKENS
    assert score == 10.0
    assert best_span(starts, ends, Row([1], [0], truncated=False, spans=((-1, -1),))) is None


def oracle(data: TaskData, wrong: float = 0.0):
    """The scores of logits that point at the labels (and, in windows without the answer, at the first token)."""
    scores = make_scores(data)
    with make_stream(data, batch_size=4, shuffle=False, epochs=1) as stream:
        for batch in stream:
            places = np.arange(batch.batch.tokens.shape[1])
            starts = np.where(places == batch.labels.start[:, None], 5.0, wrong)
            ends = np.where(places == batch.labels.end[:, None], 5.0, wrong)
            scores.update((starts, ends), batch)
    return scores


def test_labels_point_at_the_answers_and_windows_find_them_all():
    data = make_data("span", count=40, max_length=40)
    assert len(data) > 60  # most contexts need several windows
    owners = data.records.owners
    records = data.records.make(range(len(data)), 0, 0)
    found = set()
    for owner, record in zip(owners, records, strict=True):
        assert len(record.rows[0].ids) <= 40
        question = data.examples[owner]
        start, end = record.label
        if (start, end) == (0, 0):
            continue
        spans = record.rows[0].spans
        assert question.context[spans[start][0] : spans[end][1]] == question.answers[0]
        found.add(int(owner))
    assert found == set(range(40))
    assert oracle(data).result() == {"exact_match": 1.0, "f1": 1.0}
    assert oracle(data).answers()["q7"] == "key7"


@pytest.mark.parametrize("count", [*range(8, 18), 40])
def test_windows_cover_the_context_and_overlap(count):
    context = " ".join("w" for k in range(count))
    question = Question("what?", context, ("w",), (0,), id="one")
    data = TaskData(make_task("span"), "train", [question], TOKENIZER, 20)
    rows = [record.rows[0] for record in data.records.make(range(len(data)), 0, 0)]
    shown = [{span for span in row.spans if span[0] >= 0} for row in rows]
    assert len(rows) == 1 or max(map(len, shown)) < count
    whole = TOKENIZER.windows(["what?"], [context], [(0, 10**6)], most=20)[0]
    assert set().union(*shown) == {span for span in whole.spans if span[0] >= 0}
    assert all(a & b for a, b in pairwise(shown))
    question_ids = TOKENIZER.rows(["what?"], length=20)[0].ids
    assert all(row.ids[: len(question_ids)] == question_ids for row in rows)


def test_half_an_answer_is_none():
    context = "aaaa " * 12 + "bbbb cccc"
    start = context.index("bbbb")
    question = Question("q?", context, ("bbbb cccc",), (start,))
    data = TaskData(make_task("span"), "train", [question], TOKENIZER, 40)
    for record in data.records.make(range(len(data)), 0, 0):
        text = "".join(TOKENIZER.strings(record.rows[0].ids)).replace("##", "")
        whole = re.search("bbbbcccc", text) is not None
        assert (record.label != (0, 0)) == whole


def test_no_answer_may_be_given_only_where_it_may():
    questions = [Question("a?", "one two", ("two",), (4,), id="a"), Question("b?", "one two", (), (), id="b")]
    for unanswerable, expected in ((True, {"a": "two", "b": ""}), (False, {"a": "two", "b": "one"})):
        data = TaskData(make_task("span", unanswerable=unanswerable), "train", questions, TOKENIZER, 40)
        scores = oracle(data)
        answers = scores.answers()
        assert answers["a"] == expected["a"]
        assert (answers["b"] == "") is unanswerable
        assert scores.result()["exact_match"] == (1.0 if unanswerable else 0.5)


def test_parts_brought_together_and_order_do_not_matter():
    data = make_data("span", count=12, max_length=40)
    rng = np.random.default_rng(0)
    with make_stream(data, batch_size=4, shuffle=False, epochs=1) as stream:
        counted = [(b, rng.integers(0, 3, (2, *b.batch.mask.shape)).astype(float)) for b in stream]  # with ties
    whole, total = make_scores(data), make_scores(data)
    for batch, logits in counted:
        whole.update(tuple(logits), batch)
    for batch, logits in reversed(counted):
        part = make_scores(data)
        part.update(tuple(logits), batch)
        total.add_state(json.loads(json.dumps(part.get_state())))
    assert total.answers() == whole.answers()
    assert total.result() == pytest.approx(whole.result(), abs=1e-15)


def test_padding_cannot_be_answered():
    data = make_data("span", count=4)
    with make_stream(data, batch_size=4, shuffle=False, epochs=1, fixed_length=True) as stream:
        batch = next(stream)
    scores = [make_scores(data), make_scores(data)]
    logits = np.random.default_rng(0).normal(size=(2, *batch.batch.mask.shape))
    scores[0].update(tuple(logits), batch)
    scores[1].update(tuple(np.where(batch.batch.mask, logits, 100.0)), batch)
    assert scores[0].answers() == scores[1].answers()


def test_a_model_that_diverged_is_not_scored():
    data = make_data("span", count=4)
    with make_stream(data, batch_size=4, shuffle=False, epochs=1, fixed_length=True) as stream:
        batch = next(stream)
    logits = np.where(batch.batch.mask, 0.0, np.nan)  # padding may hold anything
    make_scores(data).update((logits, logits), batch)
    with pytest.raises(DataError, match="end logits hold NaN"):
        make_scores(data).update((logits, np.full_like(logits, np.nan)), batch)


def test_no_room_for_a_context_is_refused():
    with pytest.raises(DataError, match="leave tokens for a question and a context; got 4"):
        len(make_data("span", max_length=4))
