"""Examples to rows of tokens with their labels: one record is what one training weight counts for.

Everything here is a pure function of the example, the seed, the epoch and the record's place, so a record comes
out the same whenever, wherever and by whatever thread it is made.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np

from ...errors import DataError
from ...inputs.batching import Row
from ...inputs.tokenizer import Tokenizer
from .tasks import NO_CLASS, Choice, Example, Question, Sentence, Task

MASKED_SHARE = 0.15
"""Share of the tokens of a text that a masked LM is asked for (Devlin et al., 2019)."""

QUESTION_TOKENS = 64
STRIDE = 128
"""Longest question, and tokens from one window of a context to the next: the values of Devlin et al. (2019)."""

E = TypeVar("E", Sentence, Choice, Question)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Rows (C of them for a choice, else one) and what is to be predicted of them.

    Attributes:
      rows: the tokens.
      label: a class, a number, (first, last) token of an answer, or for a masked LM one id or -1 per token.
    """

    rows: tuple[Row, ...]
    label: int | float | tuple[int, int] | list[int]

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(len(row.ids) for row in self.rows)


class Records(abc.ABC, Generic[E]):
    """The records of a split, made on demand.

    Attributes:
      owners: int64, of each record the place of the example it belongs to.
    """

    def __init__(self, examples: Sequence[E], tokenizer: Tokenizer, max_length: int) -> None:
        self._examples: Sequence[E] = examples
        self._tokenizer = tokenizer
        self._max_length = max_length
        self.owners = np.arange(len(examples), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.owners)

    @abc.abstractmethod
    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        """Records at these places.

        Args:
          indices: places, below the number of records.
          seed: of the masking; other records do not depend on it.
          epoch: likewise.

        Returns:
          One record per index, in their order.

        Raises:
          TextError: a text that the tokenizer refuses.
        """


class SentenceRecords(Records[Sentence]):
    """Classification of one text or two."""

    missing: float = NO_CLASS

    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        chosen = [self._examples[index] for index in indices]
        rows = _rows(self._tokenizer, chosen, self._max_length)
        return [
            Record((row,), self.missing if e.label is None else e.label) for row, e in zip(rows, chosen, strict=True)
        ]


class ScoreRecords(SentenceRecords):
    """Regression on one text or two. A missing score is NaN, so that no sum takes it for one."""

    missing = math.nan


class ChoiceRecords(Records[Choice]):
    """Multiple choice: each continuation is paired with the prompt."""

    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        chosen = [self._examples[index] for index in indices]
        prompts = [example.prompt for example in chosen for _ in example.choices]
        rows = iter(
            self._tokenizer.rows(prompts, [text for e in chosen for text in e.choices], length=self._max_length)
        )
        return [
            Record(tuple(next(rows) for _ in example.choices), NO_CLASS if example.label is None else example.label)
            for example in chosen
        ]


class SpanRecords(Records[Question]):
    """Span extraction: one record per window of a context, windows overlapping where the context is long.

    Which windows there are depends on token counts alone, so the texts are counted once, up front. A window that
    does not hold the whole answer is labelled (0, 0), the first token.
    """

    def __init__(self, examples: Sequence[Question], tokenizer: Tokenizer, max_length: int) -> None:
        super().__init__(examples, tokenizer, max_length)
        self._most = min(QUESTION_TOKENS, (max_length - tokenizer.special_count) // 2)
        if self._most < 1:
            raise DataError(f"max_length must leave tokens for a question and a context; got {max_length}.")
        counts = _counts(tokenizer, [e.context for e in examples])
        asked = _counts(tokenizer, [e.question for e in examples])
        owners, self._ranges = [], []
        for place, (question, context) in enumerate(zip(asked, counts, strict=True)):
            windows = _windows(context, max_length - tokenizer.special_count - min(question, self._most))
            owners += [place] * len(windows)
            self._ranges += windows
        self.owners = np.array(owners, np.int64)

    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        chosen = [self._examples[self.owners[index]] for index in indices]
        rows = self._tokenizer.windows(
            [example.question for example in chosen],
            [example.context for example in chosen],
            [self._ranges[index] for index in indices],
            most=self._most,
        )
        return [Record((row,), _answer_tokens(row, example)) for row, example in zip(rows, chosen, strict=True)]


class MaskedRecords(Records[Sentence]):
    """Masked LM: each epoch masks other tokens, chosen by (seed, epoch, place) alone.

    After Devlin et al. (2019): 15% of the tokens, at least one, of which 80% become the mask token, 10% a random
    token and 10% stay. Special tokens are never chosen.
    """

    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        rows = _rows(self._tokenizer, [self._examples[index] for index in indices], self._max_length)
        return [
            _mask(row, self._tokenizer, np.random.default_rng((seed, epoch, index)))
            for row, index in zip(rows, indices, strict=True)
        ]


class EachMaskedRecords(Records[Sentence]):
    """Masked LM, each token masked once and alone, as pseudo-perplexity (Salazar et al., 2020) wants it."""

    def __init__(self, examples: Sequence[Sentence], tokenizer: Tokenizer, max_length: int) -> None:
        super().__init__(examples, tokenizer, max_length)
        tokenizer.mask_id  # noqa: B018  refused here, not in a worker thread
        rows = _rows(tokenizer, examples, max_length)
        places = [(owner, place) for owner, row in enumerate(rows) for place in _maskable(row, tokenizer)]
        self.owners = np.array([owner for owner, _ in places], np.int64)
        self._places = [place for _, place in places]

    def make(self, indices: Sequence[int], seed: int, epoch: int) -> list[Record]:
        rows = _rows(self._tokenizer, [self._examples[self.owners[index]] for index in indices], self._max_length)
        made = []
        for row, index in zip(rows, indices, strict=True):
            place = self._places[index]
            labels = [NO_CLASS] * len(row.ids)
            labels[place] = row.ids[place]
            ids = [*row.ids[:place], self._tokenizer.mask_id, *row.ids[place + 1 :]]
            made.append(Record((dataclasses.replace(row, ids=ids),), labels))
        return made


def make_records(
    task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, *, each_token: bool = False
) -> Records:
    """The records of a task's examples.

    Args:
      task: says which kind.
      examples: of that kind.
      tokenizer: the model's.
      max_length: most tokens of a row.
      each_token: for a masked LM, mask every token in turn (pseudo-perplexity) instead of some at random.

    Returns:
      Records that are made when they are asked for.

    Raises:
      DataError: `each_token` for another kind, or no examples.
      TextError: texts or a length that the tokenizer refuses.
    """
    if not examples:
        raise DataError(f"{task.name} has no examples; expected at least one.")
    if each_token and task.kind != "masked_lm":
        raise DataError(f"each_token is for masked LM only; got the kind {task.kind}.")
    kinds: dict[str, type[Records]] = {
        "classification": SentenceRecords,
        "regression": ScoreRecords,
        "choice": ChoiceRecords,
        "span": SpanRecords,
        "masked_lm": EachMaskedRecords if each_token else MaskedRecords,
    }
    if task.kind == "masked_lm":
        tokenizer.mask_id  # noqa: B018  refused here, not in a worker thread
    return kinds[task.kind](examples, tokenizer, max_length)


def _rows(tokenizer: Tokenizer, examples: Sequence[Sentence], length: int) -> list[Row]:
    texts = [example.text for example in examples]
    if examples[0].pair is None:
        return tokenizer.rows(texts, length=length)
    return tokenizer.rows(texts, [example.pair or "" for example in examples], length=length)


def _counts(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    # Many questions share a context.
    known = dict.fromkeys(texts, 0)
    names = list(known)
    for start in range(0, len(names), 1024):
        chunk = names[start : start + 1024]
        known.update(zip(chunk, tokenizer.counts(chunk), strict=True))
    return [known[text] for text in texts]


def _windows(count: int, size: int) -> list[tuple[int, int]]:
    """First token and end of overlapping windows of at most `size` tokens that cover `count`."""
    step = min(STRIDE, max(1, size // 2))
    windows = [(0, min(size, count))]
    while windows[-1][1] < count:
        begin = windows[-1][0] + step
        windows.append((begin, min(begin + size, count)))
    return windows


def _answer_tokens(row: Row, example: Question) -> tuple[int, int]:
    """First and last token of the answer in a window; (0, 0) where it is not wholly inside."""
    shown = [place for place, (first, _) in enumerate(row.spans) if first >= 0]
    if not example.answers or not shown:
        return 0, 0
    answer = example.answers[0]
    begin = example.starts[0] + len(answer) - len(answer.lstrip())
    end = example.starts[0] + len(answer.rstrip())
    # The whole answer or none of it: half an answer is a wrong one.
    if begin < row.spans[shown[0]][0] or end > row.spans[shown[-1]][1]:
        return 0, 0
    inside = [place for place in shown if row.spans[place][0] < end and row.spans[place][1] > begin]
    return (inside[0], inside[-1]) if inside else (0, 0)


def _maskable(row: Row, tokenizer: Tokenizer) -> list[int]:
    return [place for place, number in enumerate(row.ids) if number not in tokenizer.special_ids]


def most_masked(length: int) -> int:
    """How many tokens of a row of this length a masked LM is asked for at most."""
    return max(1, round(MASKED_SHARE * length))


def _mask(row: Row, tokenizer: Tokenizer, random: np.random.Generator) -> Record:
    """The row with some tokens masked, exchanged or kept, and those tokens as labels."""
    ids, labels = list(row.ids), [NO_CLASS] * len(row.ids)
    places = _maskable(row, tokenizer)
    wanted = min(len(places), most_masked(len(places)))
    for place in random.choice(places, wanted, replace=False) if places else ():
        labels[place] = ids[place]
        fate = random.random()
        if fate < 0.8:
            ids[place] = tokenizer.mask_id
        elif fate < 0.9:
            ids[place] = int(random.integers(tokenizer.config.vocab))
    return Record((dataclasses.replace(row, ids=ids),), labels)
