"""GLUE, SWAG and SQuAD through the `datasets` library, for machines that are online and have it."""

from collections.abc import Callable, Iterable
from typing import Any

from ...errors import DataError
from .official_files import GLUE
from .splits import Parts
from .tasks import Choice, Example, Question, Sentence, Split

_NAMES: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
# Where the hub's copy of GLUE has other names than the official files, or the texts' columns are called otherwise.
_PAIRS = {
    "cola": ("sentence", None),
    "sst2": ("sentence", None),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "mnli-mm": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
}


def read_hub(name: str) -> Parts:
    """Load a benchmark from the Hugging Face hub.

    Args:
      name: "glue/TASK", "swag", "squad" or "squad2".

    Returns:
      Its official splits.

    Raises:
      DataError: `datasets` is not installed, or it cannot load the data (no network, most often).
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} needs its files: give a directory in the official format, or `pip install datasets` to load it "
            "from the Hugging Face hub."
        ) from error
    family, _, task = name.partition("/")
    config = "mnli" if task == "mnli-mm" else task
    arguments = {
        "glue": ("nyu-mll/glue", config),
        "swag": ("allenai/swag", "regular"),
        "squad": ("rajpurkar/squad",),
        "squad2": ("rajpurkar/squad_v2",),
    }[family]
    try:
        loaded = datasets.load_dataset(*arguments)
    except Exception as error:  # its errors share no class, and most come from the network
        raise DataError(f"`datasets` could not load {'/'.join(arguments)}: {error}. Is this machine online?") from error
    make = _maker(family, task)
    splits: dict[Split, list[Example]] = {}
    for split, name_there in _hub_splits(task).items():
        if name_there in loaded:
            splits[split] = [make(row) for row in loaded[name_there]]
    return Parts(splits)


def _hub_splits(task: str) -> dict[Split, str]:
    suffix = {"mnli": "_matched", "mnli-mm": "_mismatched"}.get(task, "")
    return {split: name if split == "train" else f"{name}{suffix}" for name, split in _NAMES.items()}


def _maker(family: str, task: str) -> Callable[[dict[str, Any]], Example]:
    if family == "glue":
        text, pair = _PAIRS.get(task, ("sentence1", "sentence2"))
        number = not GLUE[task].classes
        return lambda row: _sentence(row, text, pair, number=number)
    return _swag if family == "swag" else _squad


def _sentence(row: dict[str, Any], text: str, pair: str | None, *, number: bool) -> Sentence:
    # -1 is the hub's "not told", for a score as well; no GLUE score is negative.
    label = None if row["label"] is None or row["label"] < 0 else row["label"]
    told = None if label is None else float(label) if number else int(label)
    return Sentence(row[text], pair=row[pair] if pair else None, label=told, id=str(row["idx"]))


def _swag(row: dict[str, Any]) -> Choice:
    endings = tuple(f"{row['sent2']} {row[f'ending{number}']}".strip() for number in range(4))
    return Choice(row["sent1"], endings, row["label"] if row["label"] is not None and row["label"] >= 0 else None)


def _squad(row: dict[str, Any]) -> Question:
    texts: Iterable[str] = row["answers"]["text"]
    return Question(row["question"], row["context"], tuple(texts), tuple(row["answers"]["answer_start"]), id=row["id"])
