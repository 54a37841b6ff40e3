"""What a task is: its kind, its examples as read, and the arrays that reach a training step."""

import dataclasses
from typing import Any, Literal, TypeAlias

from flax import nnx
from jaxtyping import Array, Float, Int

from ...errors import DataError, did_you_mean
from ...types import Batch

Kind = Literal["classification", "regression", "span", "choice", "masked_lm"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

NO_CLASS = -1
"""The label of an example whose class is missing (GLUE's test sets), and of a token that is not to be predicted."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be learnt, how it is scored, and whose data it is.

    Attributes:
      name: what the user types.
      kind: "classification" (a sentence or a pair), "regression" (likewise), "span" (an answer in a context),
        "choice" (the best of several continuations) or "masked_lm".
      classes: names of the classes in the order of their labels; () where there are none.
      metric: the score that chooses the best checkpoint, a key of what the task's `Scores.result` returns.
      source: where the data come from, in words that name them as what they are.
      licence: as stated by the source.
      choices: continuations per example, C; 1 for other kinds.
      positive: the class that F1 counts, where `metric` is "f1"; else None and F1 is the mean over classes.
      unanswerable: whether a span may be absent (SQuAD 2.0).
      pairs: whether an example is two texts.
    """

    name: str
    kind: Kind
    metric: str
    source: str
    licence: str
    classes: tuple[str, ...] = ()
    choices: int = 1
    positive: int | None = None
    unanswerable: bool = False
    pairs: bool = False

    @property
    def outputs(self) -> int:
        """Numbers the head must give: per sentence (classes; 1 to regress or per choice), per token 2 for a span.

        0 for a masked LM, whose head is as wide as the vocabulary.
        """
        return {"classification": len(self.classes), "regression": 1, "span": 2, "choice": 1, "masked_lm": 0}[self.kind]


# Where an example stands says nothing of what is learnt from it, so it has no part in equality and fingerprints.
_LINE: Any = dataclasses.field(default=0, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """One text or a pair.

    Attributes:
      text: the first text.
      pair: the second, where examples are pairs.
      label: a class, a number, or None: missing, or (masked LM) nothing to predict but the text.
      id: names it in predictions.
      line: where it stands in the user's file, from 1; 0 where it is from no such file.
    """

    text: str
    pair: str | None = None
    label: int | float | None = None
    id: str = ""
    line: int = _LINE


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question about a context.

    Attributes:
      question: the question.
      context: the passage.
      answers: parts of the context, all of them right; () where there is no answer.
      starts: of each answer the place of its first character in the context.
      id: names it in predictions.
      line: as of a `Sentence`.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    id: str = ""
    line: int = _LINE


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A prompt and C continuations.

    Attributes:
      prompt: the beginning.
      choices: the continuations.
      label: which of them is right; None where it is missing.
      id: names it in predictions.
      line: as of a `Sentence`.
    """

    prompt: str
    choices: tuple[str, ...]
    label: int | None
    id: str = ""
    line: int = _LINE


Example: TypeAlias = Sentence | Question | Choice


@nnx.dataclass
class SpanLabels(nnx.Pytree):
    """First and last token of the answer, both 0 (the first token, [CLS]) where the row does not hold it."""

    start: Int[Array, " B"] = nnx.data()
    end: Int[Array, " B"] = nnx.data()


@nnx.dataclass
class MaskedLabels(nnx.Pytree):
    """Where a masked LM is asked, and which tokens were there; as many places a row as its length can have.

    Attributes:
      places: int32 [B K], 0 where nothing is asked.
      tokens: int32 [B K], -1 where nothing is asked.
    """

    places: Int[Array, "B K"] = nnx.data()
    tokens: Int[Array, "B K"] = nnx.data()


@nnx.dataclass
class TrainBatch(nnx.Pytree):
    """One process's share of one step's records. The leaves are numpy arrays until the caller puts them on devices.

    ================  ==================  ====================================================
    kind              batch               labels
    ================  ==================  ====================================================
    classification    B T                 int32 [B]
    regression        B T                 float32 [B]
    span              B T                 `SpanLabels` of int32 [B]
    choice            (B C) T             int32 [B]; row b * C + c is choice c of example b
    masked_lm         B T, masked         `MaskedLabels` of int32 [B K]
    ================  ==================  ====================================================

    `weights` is 1 for a record and 0 for a filler row, which repeats a real one so that every batch has B rows;
    leave it out of every sum. `indices` are the records' places in the `TaskData` (a filler's is its original's).
    A missing class is -1, and a missing number NaN.
    """

    batch: Batch = nnx.data()
    labels: Any = nnx.data()  # Int[Array, "B"] | Float[Array, "B"] | SpanLabels | MaskedLabels, by kind
    weights: Float[Array, " B"] = nnx.data()
    indices: Int[Array, " B"] = nnx.data()


def check_split(split: str) -> Split:
    """The split of that name.

    Args:
      split: "train", "validation" or "test".

    Raises:
      DataError: another name.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise DataError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}.{did_you_mean(split, SPLITS)}")
