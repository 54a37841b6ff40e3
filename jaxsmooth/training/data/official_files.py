"""The real GLUE, SWAG and SQuAD, from a local directory in the format that they are handed out in.

Official splits stay as they are. The labels of GLUE's and SWAG's test splits are not public: -1 (or NaN).
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from .splits import Parts
from .tasks import Choice, Example, Question, Sentence, Split


class GlueTable(NamedTuple):
    """Where one task of GLUE keeps what.

    Attributes:
      folder: its folder in the official download.
      text: column of the first text.
      pair: column of the second, or "".
      label: column of the label.
      classes: names of the classes, as the label column spells them; () for a number.
      validation: stem of the validation file.
      test: stem of the test file.
    """

    folder: str
    text: str
    pair: str
    label: str
    classes: tuple[str, ...]
    validation: str = "dev"
    test: str = "test"


_NLI = ("entailment", "neutral", "contradiction")
_TWO = ("entailment", "not_entailment")
_BINARY = ("0", "1")

GLUE: dict[str, GlueTable] = {
    "cola": GlueTable("CoLA", "sentence", "", "label", _BINARY),
    "sst2": GlueTable("SST-2", "sentence", "", "label", _BINARY),
    "mrpc": GlueTable("MRPC", "#1 String", "#2 String", "Quality", _BINARY),
    "stsb": GlueTable("STS-B", "sentence1", "sentence2", "score", ()),
    "qqp": GlueTable("QQP", "question1", "question2", "is_duplicate", _BINARY),
    "mnli": GlueTable("MNLI", "sentence1", "sentence2", "gold_label", _NLI, "dev_matched", "test_matched"),
    "mnli-mm": GlueTable("MNLI", "sentence1", "sentence2", "gold_label", _NLI, "dev_mismatched", "test_mismatched"),
    "qnli": GlueTable("QNLI", "question", "sentence", "label", _TWO),
    "rte": GlueTable("RTE", "sentence1", "sentence2", "label", _TWO),
    "wnli": GlueTable("WNLI", "sentence1", "sentence2", "label", _BINARY),
}
"""The nine tasks of GLUE (Wang et al., 2019) with a training set, by short name; MNLI twice, by its two dev sets."""

# CoLA's training and dev files have no header.
_COLA_COLUMNS = ["source", "label", "mark", "sentence"]
_LABELS = ("gold_label", "label", "score", "Quality", "is_duplicate")


def read_glue(task: str, directory: Path) -> Parts:
    """One task of GLUE.

    Args:
      task: a key of `GLUE`.
      directory: the official download: the folder of all tasks, or this task's own.

    Returns:
      The splits whose files are there.

    Raises:
      DataError: no training file, or one that lacks a column.
    """
    table = GLUE[task]
    folder = directory / table.folder if (directory / table.folder).is_dir() else directory
    stems: dict[Split, str] = {"train": "train", "validation": table.validation, "test": table.test}
    present = {split: folder / f"{stem}.tsv" for split, stem in stems.items() if (folder / f"{stem}.tsv").is_file()}
    if "train" not in present:
        raise DataError(
            f"{directory} must hold {table.folder}/train.tsv or train.tsv, as GLUE is handed out; it does not. "
            "Give the folder of the official download."
        )
    splits: dict[Split, list[Example]] = {}
    notes = []
    for split, path in present.items():
        splits[split], malformed = _glue_file(path, table, cola=task == "cola" and split != "test")
        if malformed:
            notes.append(f"left out: {malformed} rows of {path.name} with missing columns or an unknown label")
    return Parts(splits, tuple(notes))


def _glue_file(path: Path, table: GlueTable, *, cola: bool) -> tuple[list[Example], int]:
    rows = tsv_rows(path)
    header = _COLA_COLUMNS if cola else next(rows, [])
    labelled = any(name in header for name in _LABELS)
    needed = [table.text, *([table.pair] if table.pair else []), *([table.label] if labelled else [])]
    # MRPC's test file and the others' call their number "index"; what is missed here is a text or a label.
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path} must have the columns {needed}; {missing} are missing in {header}.")
    examples: list[Example] = []
    malformed = 0
    for place, row in enumerate(rows):
        cells = dict(zip(header, row, strict=False))
        label = _glue_label(cells.get(table.label, ""), table.classes) if labelled else None
        if any(name not in cells for name in needed) or (labelled and label is None):
            malformed += 1
            continue
        examples.append(
            Sentence(cells[table.text], pair=cells[table.pair] if table.pair else None, label=label, id=str(place))
        )
    return examples, malformed


def _glue_label(cell: str, classes: tuple[str, ...]) -> int | float | None:
    if classes:
        return classes.index(cell) if cell in classes else None
    try:
        return float(cell)
    except ValueError:
        return None


def read_swag(directory: Path) -> Parts:
    """SWAG (Zellers et al., 2018): train.csv, val.csv and test.csv. The prompt is the first sentence.

    Each continuation is the beginning of the second sentence with one of the four endings.

    Raises:
      DataError: no train.csv, or a column missing.
    """
    names: dict[Split, str] = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
    present = {split: directory / name for split, name in names.items() if (directory / name).is_file()}
    if "train" not in present:
        raise DataError(f"{directory} must hold train.csv, as SWAG is handed out; it does not.")
    return Parts({split: list(_swag_file(path)) for split, path in present.items()})


def _swag_file(path: Path) -> Iterator[Choice]:
    needed = ["sent1", "sent2", *(f"ending{number}" for number in range(4))]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for place, row in enumerate(csv.DictReader(file)):
                missing = [name for name in needed if row.get(name) is None]
                label = row.get("label")
                if missing or (label is not None and label not in ("0", "1", "2", "3")):
                    raise DataError(
                        f"{path}, row {place + 1}: expected the columns {needed} and a label from 0 to 3; "
                        f"got {label!r} and lack {missing}."
                    )
                endings = tuple(f"{row['sent2']} {row[name]}".strip() for name in needed[2:])
                yield Choice(row["sent1"], endings, None if label is None else int(label), id=str(place))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def read_squad_release(directory: Path, version: str) -> Parts:
    """SQuAD 1.1 or 2.0 (Rajpurkar et al., 2016, 2018): train-vX.json and dev-vX.json.

    Args:
      directory: where the files are.
      version: "1.1" or "2.0".

    Raises:
      DataError: a file missing or in another format.
    """
    names: dict[Split, str] = {"train": f"train-v{version}.json", "validation": f"dev-v{version}.json"}
    present = {split: directory / name for split, name in names.items() if (directory / name).is_file()}
    if "train" not in present:
        raise DataError(f"{directory} must hold {names['train']}, as SQuAD is handed out; it does not.")
    splits: dict[Split, list[Example]] = {}
    notes: tuple[str, ...] = ()
    for split, path in present.items():
        questions, said = read_squad_file(path)
        splits[split] = [question for _, question in questions]
        notes += tuple(f"{path.name}, {note}" for note in said)
    return Parts(splits, notes)


def read_squad_file(path: Path) -> tuple[list[tuple[str, Question]], tuple[str, ...]]:
    """The questions of a file in SQuAD's format, each with its article's title, and notes.

    An answer that is not at its place in the passage is dropped, and a question that is left without an answer
    though it had some is skipped; the notes count both.

    Raises:
      DataError: not JSON, or not of this form.
    """
    questions, spans, skipped = [], 0, 0
    try:
        for number, article in enumerate(json.loads(path.read_text(encoding="utf-8"))["data"]):
            for paragraph in article["paragraphs"]:
                for item in paragraph["qas"]:
                    question, misplaced = _question(item, paragraph["context"])
                    spans += misplaced
                    if misplaced and not question.answers:
                        skipped += 1
                    else:
                        questions.append((str(article.get("title", number)), question))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must be in SQuAD's JSON format; got {error!r}. Is it another file?") from error
    counted = ((spans, "answers that are not at their place"), (skipped, "questions, none of whose answers is"))
    return questions, tuple(f"left out: {count} {what}" for count, what in counted if count)


def _question(item: dict[str, Any], context: str) -> tuple[Question, int]:
    given = [] if item.get("is_impossible") else item["answers"]
    pairs = [(answer["text"], int(answer["answer_start"])) for answer in given]
    placed = [(text, start) for text, start in pairs if context[start : start + len(text)] == text and text.strip()]
    texts, starts = tuple(text for text, _ in placed), tuple(start for _, start in placed)
    return Question(item["question"], context, texts, starts, id=str(item["id"])), len(pairs) - len(placed)


def tsv_rows(path: Path) -> Iterator[list[str]]:
    """The cells of a tab-separated file without quoting, as GLUE's are; LF or CR LF, a byte-order mark dropped.

    Raises:
      DataError: missing, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line:
                    yield line.split("\t")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8. Was it saved as Latin-1?") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
