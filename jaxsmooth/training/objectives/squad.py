"""Answers from span logits, and exact match and F1 as SQuAD counts them (Rajpurkar et al., 2016, 2018)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...inputs.batching import Row
from ..data.records import SpanRecords
from ..data.tasks import Question, TrainBatch
from .scores import Scores, check_numbers, check_shape

ANSWER_TOKENS = 30
"""Longest answer that is considered, in tokens (Devlin et al., 2019)."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SpanScores(Scores):
    """Exact match and F1, the best answer over all windows of each question. Keeps one answer per question."""

    def __init__(self, examples: Sequence[Question], records: SpanRecords, *, unanswerable: bool) -> None:
        """Count from nothing.

        Args:
          examples: the questions of the split.
          records: their windows.
          unanswerable: whether "no answer" may be given, when the first token scores above every span.
        """
        self._examples, self._records, self._unanswerable = examples, records, unanswerable
        self._best: dict[int, tuple[float, str]] = {}
        self._null: dict[int, float] = {}

    def update(self, outputs: Any, batch: TrainBatch) -> None:
        starts, ends = (np.asarray(part, np.float64) for part in outputs)
        shape = np.asarray(batch.batch.mask).shape
        check_shape("start logits", starts, shape)
        check_shape("end logits", ends, shape)
        real = np.flatnonzero(np.asarray(batch.weights) > 0)
        tokens = np.asarray(batch.batch.mask)[real]
        check_numbers("start logits", starts[real][tokens])
        check_numbers("end logits", ends[real][tokens])
        indices = np.asarray(batch.indices)[real].tolist()
        for place, index, record in zip(real, indices, self._records.make(indices, 0, 0), strict=True):
            owner = int(self._records.owners[index])
            null = float(starts[place, 0] + ends[place, 0])
            self._null[owner] = min(null, self._null.get(owner, np.inf))
            found = best_span(starts[place], ends[place], record.rows[0])
            if found is not None:
                first, last, score = found
                self._offer(owner, score, self._examples[owner].context[first:last])

    def result(self) -> dict[str, float]:
        answers = self._answers()
        if not answers:
            raise DataError("no question was counted; expected at least one.")
        pairs = [(answer, self._examples[owner].answers) for owner, answer in answers.items()]
        return {
            "exact_match": float(np.mean([exact_match(answer, golds) for answer, golds in pairs])),
            "f1": float(np.mean([token_f1(answer, golds) for answer, golds in pairs])),
        }

    def answers(self) -> dict[str, str]:
        """The answer to every question counted, by the question's id: what SQuAD's own script reads as JSON."""
        return {self._examples[owner].id: answer for owner, answer in self._answers().items()}

    def get_state(self) -> dict[str, Any]:
        return {
            "best": [[owner, score, text] for owner, (score, text) in self._best.items()],
            "null": [[owner, score] for owner, score in self._null.items()],
        }

    def add_state(self, state: dict[str, Any]) -> None:
        for owner, score, text in state["best"]:
            self._offer(owner, score, text)
        for owner, score in state["null"]:
            self._null[owner] = min(score, self._null.get(owner, np.inf))

    def _offer(self, owner: int, score: float, text: str) -> None:
        # Of equal scores the lesser text, so that the order of counting does not matter.
        if owner not in self._best or (-score, text) < (-self._best[owner][0], self._best[owner][1]):
            self._best[owner] = (score, text)

    def _answers(self) -> dict[int, str]:
        answers = {}
        for owner, null in self._null.items():
            score, text = self._best.get(owner, (-np.inf, ""))
            answers[owner] = "" if self._unanswerable and null > score else text
        return answers


def best_span(starts: NDArray, ends: NDArray, row: Row) -> tuple[int, int, float] | None:
    """The span of the context with the greatest sum of start and end logit, at most `ANSWER_TOKENS` long.

    Args:
      starts: a logit per token, [T].
      ends: likewise.
      row: of `Tokenizer.windows`; T may exceed its length, by padding.

    Returns:
      The first character of the context, the one after the last, and the sum; None where the row holds no context.
    """
    inside = np.flatnonzero([first >= 0 for first, _ in row.spans])
    if not len(inside):
        return None
    low, high = inside[0], inside[-1] + 1
    sums = starts[low:high, None] + ends[None, low:high]
    length = np.arange(high - low)[None, :] - np.arange(high - low)[:, None]
    sums = np.where((length >= 0) & (length < ANSWER_TOKENS), sums, -np.inf)
    start, end = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return row.spans[low + start][0], row.spans[low + end][1], float(sums[start, end])


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 where the answer equals one of the golds after `normalise_answer`; without golds, where it is empty.

    Args:
      answer: the prediction.
      golds: the right answers.

    >>> exact_match("the Eiffel Tower!", ["Eiffel tower"])
    1.0
    """
    return max(float(normalise_answer(answer) == normalise_answer(gold)) for gold in _golds(golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """F1 of the answer's words against the best of the golds; without golds, 1 where the answer is empty.

    Args:
      answer: the prediction.
      golds: the right answers.

    >>> round(token_f1("in Paris, France", ["Paris"]), 4)
    0.5
    """
    return max(_f1_of_words(normalise_answer(answer).split(), normalise_answer(gold).split()) for gold in _golds(golds))


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space, in this order.

    Args:
      text: an answer.

    >>> normalise_answer("The  cat's  pyjamas, and a hat.")
    'cats pyjamas and hat'
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _golds(given: Sequence[str]) -> Sequence[str]:
    # Only an empty answer could equal a gold of articles and punctuation alone; SQuAD 2.0 drops such golds.
    return [gold for gold in given if normalise_answer(gold)] or [""]


def _f1_of_words(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold))
