"""GLUE, SWAG and SQuAD from a local directory, in the format in which they are distributed.

Official splits stay as they are. The labels of GLUE's and SWAG's test splits are not public: -1 (or NaN).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...assets.tables import read_table, tsv_cells
from ...errors import DataError
from ...json_reading import loads
from .benchmarks import GLUE, SWAG_COLUMNS, GlueTask, glue_sentence, swag_choice
from .splits import Parts
from .tasks import Choice, Example, Question, Sentence, Split

# CoLA's training and dev files have no header.
_COLA_COLUMNS = ["source", "label", "mark", "sentence"]
_LABELS = {table.label for table in GLUE.values()}


def read_glue(task: str, directory: Path) -> Parts:
    """One task of GLUE.

    Args:
      task: a key of `GLUE`.
      directory: the official download: the folder of all tasks, or this task's own.

    Returns:
      The splits whose files are there, and how many malformed rows were left out.

    Raises:
      DataError: no training file, or one that lacks a column.
    """
    table = GLUE[task]
    folder = directory / table.folder if (directory / table.folder).is_dir() else directory
    names: dict[Split, str] = {
        "train": "train.tsv",
        "validation": f"dev{table.variant}.tsv",
        "test": f"test{table.variant}.tsv",
    }
    splits: dict[Split, list[Example]] = {}
    notes = []
    for split, path in _present(folder, names, f"{directory} must hold {table.folder}/train.tsv or train.tsv").items():
        rows = list(_glue_rows(path, table, header=_COLA_COLUMNS if task == "cola" and split != "test" else None))
        splits[split] = [row for row in rows if row is not None]
        if malformed := len(rows) - len(splits[split]):
            notes.append(f"left out: {malformed} rows of {path.name} with missing columns or an unknown label")
    return Parts(splits, tuple(notes))


def read_swag(directory: Path) -> Parts:
    """SWAG (Zellers et al., 2018): train.csv, val.csv and test.csv. The prompt is the first sentence.

    Args:
      directory: where the files are.

    Returns:
      The splits whose files are there.

    Raises:
      DataError: no train.csv, or a row that lacks a column or has another label.
    """
    names: dict[Split, str] = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
    present = _present(directory, names, f"{directory} must hold train.csv")
    return Parts({split: list(_swag_rows(path)) for split, path in present.items()})


def read_squad_release(directory: Path, version: str) -> Parts:
    """SQuAD 1.1 or 2.0 (Rajpurkar et al., 2016, 2018): train-vX.json and dev-vX.json.

    Args:
      directory: where the files are.
      version: "1.1" or "2.0".

    Returns:
      The splits whose files are there, and what `read_squad_file` left out.

    Raises:
      DataError: no training file, or a file in another format.
    """
    names: dict[Split, str] = {"train": f"train-v{version}.json", "validation": f"dev-v{version}.json"}
    splits: dict[Split, list[Example]] = {}
    notes: tuple[str, ...] = ()
    for split, path in _present(directory, names, f"{directory} must hold {names['train']}").items():
        questions, left_out = read_squad_file(path)
        splits[split] = [question for _, question in questions]
        notes += tuple(f"{path.name}, {note}" for note in left_out)
    return Parts(splits, notes)


def read_squad_file(path: Path) -> tuple[list[tuple[str, Question]], tuple[str, ...]]:
    """The questions of a file in SQuAD's format.

    An answer that is not at its place in the passage is dropped, and a question that is left without an answer
    though it had some is skipped.

    Args:
      path: the file.

    Returns:
      Each question with its article's title, and notes that count what was left out.

    Raises:
      DataError: not JSON, or not of this form.
    """
    questions, spans, skipped = [], 0, 0
    try:
        for number, article in enumerate(loads(path.read_text(encoding="utf-8"))["data"]):
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


def _present(folder: Path, names: dict[Split, str], expected: str) -> dict[Split, Path]:
    """The files that are there, by split; the training file must be."""
    present = {split: folder / name for split, name in names.items() if (folder / name).is_file()}
    if "train" not in present:
        raise DataError(f"{expected}, as in the official download; it does not. Give that folder.")
    return present


def _glue_rows(path: Path, table: GlueTask, header: list[str] | None) -> Iterator[Sentence | None]:
    """The examples of a file; None for a row with missing cells or an unknown label."""
    rows = (cells for _, cells in tsv_cells(path))
    header = next(rows, []) if header is None else header
    labelled = not _LABELS.isdisjoint(header)
    # MRPC's test file and the others' call their number "index"; what is missed here is a text or a label.
    needed = [*filter(None, table.texts), *([table.label] if labelled else [])]
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path} must have the columns {needed}; {missing} are missing in {header}.")
    for number, row in enumerate(rows):
        cells = dict(zip(header, row, strict=False))
        label = _glue_label(cells.get(table.label, ""), table.classes) if labelled else None
        whole = all(name in cells for name in needed) and (label is not None or not labelled)
        yield glue_sentence(cells, table.texts, label, number) if whole else None


def _glue_label(cell: str, classes: tuple[str, ...]) -> int | float | None:
    if classes:
        return classes.index(cell) if cell in classes else None
    try:
        return float(cell)
    except ValueError:
        return None


def _swag_rows(path: Path) -> Iterator[Choice]:
    for number, (row, _, where) in enumerate(read_table(path)):
        missing = [name for name in SWAG_COLUMNS if name not in row]
        label = row.get("label")
        if missing or label not in (None, "0", "1", "2", "3"):
            raise DataError(
                f"{where}: expected the columns {list(SWAG_COLUMNS)} and a label from 0 to 3; "
                f"got {label!r} and lack {missing}."
            )
        yield swag_choice(row, None if label is None else int(label), str(number))


def _question(item: dict[str, Any], context: str) -> tuple[Question, int]:
    """A question with the answers that are at their place, and how many are not."""
    given = [] if item.get("is_impossible") else item["answers"]
    pairs = [(answer["text"], int(answer["answer_start"])) for answer in given]
    placed = [(text, start) for text, start in pairs if context[start : start + len(text)] == text and text.strip()]
    texts, starts = tuple(text for text, _ in placed), tuple(start for _, start in placed)
    return Question(item["question"], context, texts, starts, id=str(item["id"])), len(pairs) - len(placed)
