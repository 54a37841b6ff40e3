"""GLUE, SWAG and SQuAD: what their tasks, columns and labels are, in the official files and on the Hugging Face hub.

`official_files` and `hub` are the two sources of their rows.
"""

from typing import Any, NamedTuple

from .tasks import Choice, Sentence


class GlueTask(NamedTuple):
    """One task of GLUE.

    Attributes:
      folder: its folder in the official download.
      texts: columns of the first text and of the second, "" for none.
      label: column of the label in the official files; on the hub it is "label", -1 where it is missing.
      classes: names of the classes, as the official label column spells them; () for a number.
      metric: what chooses the best checkpoint.
      hub_texts: `texts` on the hub, where they differ.
      variant: "_matched" or "_mismatched" for MNLI's two validation and test splits.
    """

    folder: str
    texts: tuple[str, str]
    label: str
    classes: tuple[str, ...]
    metric: str = "accuracy"
    hub_texts: tuple[str, str] | None = None
    variant: str = ""


_NLI = ("entailment", "neutral", "contradiction")
_TWO = ("entailment", "not_entailment")
_BINARY = ("0", "1")
_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")

GLUE: dict[str, GlueTask] = {
    "cola": GlueTask("CoLA", ("sentence", ""), "label", _BINARY, "matthews"),
    "sst2": GlueTask("SST-2", ("sentence", ""), "label", _BINARY),
    "mrpc": GlueTask("MRPC", ("#1 String", "#2 String"), "Quality", _BINARY, "f1", _SENTENCES),
    "stsb": GlueTask("STS-B", _SENTENCES, "score", (), "spearman"),
    "qqp": GlueTask("QQP", ("question1", "question2"), "is_duplicate", _BINARY, "f1"),
    "mnli": GlueTask("MNLI", _SENTENCES, "gold_label", _NLI, "accuracy", _PREMISE, "_matched"),
    "mnli-mm": GlueTask("MNLI", _SENTENCES, "gold_label", _NLI, "accuracy", _PREMISE, "_mismatched"),
    "qnli": GlueTask("QNLI", ("question", "sentence"), "label", _TWO),
    "rte": GlueTask("RTE", _SENTENCES, "label", _TWO),
    "wnli": GlueTask("WNLI", _SENTENCES, "label", _BINARY),
}
"""The nine tasks of GLUE (Wang et al., 2019) with a training set, by short name; MNLI twice, by its two dev sets."""

SWAG_COLUMNS = ("sent1", "sent2", *(f"ending{number}" for number in range(4)))
"""The prompt, the beginning of the second sentence, and four ways in which it may end; `label` says which is right."""


def glue_sentence(row: dict[str, Any], texts: tuple[str, str], label: int | float | None, number: object) -> Sentence:
    """The example of one row of a GLUE task.

    Args:
      row: cells by column.
      texts: columns of the first text and of the second, "" for none.
      label: a class, a score, or None where it is missing.
      number: of the row.
    """
    first, second = texts
    return Sentence(row[first], pair=row[second] if second else None, label=label, id=str(number))


def swag_choice(row: dict[str, Any], label: int | None, number: str) -> Choice:
    """The example of one row of SWAG: each continuation is the beginning of the second sentence with one of its ends.

    Args:
      row: cells by column.
      label: which continuation is right, or None where it is missing.
      number: of the row.
    """
    prompt, begin, *endings = SWAG_COLUMNS
    return Choice(row[prompt], tuple(f"{row[begin]} {row[name]}".strip() for name in endings), label, id=number)
