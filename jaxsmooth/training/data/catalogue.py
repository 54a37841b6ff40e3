"""Every task by name: what it is, where its data come from and how they are read; and `load_task`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...assets import REGISTRY
from ...assets.tables import Missing, is_table
from ...errors import DataError, did_you_mean, require_int
from ...inputs.tokenizer import Tokenizer
from ...paths import refuse_address
from . import corpora
from .benchmarks import GLUE
from .hub import read_hub
from .official_files import read_glue, read_squad_release, read_swag
from .own import check_own
from .splits import Parts, sample
from .task_data import TaskData
from .tasks import Choice, Kind, Task, check_split
from .user_tables import read_tables


@dataclasses.dataclass(frozen=True)
class Entry:
    """A task and the reader of its data; `finetune(config, tasks={name: Entry(...)})` takes one of your own.

    Attributes:
      task: what it is.
      read: reads all splits; takes the directory of the data, None for a pinned corpus or the hub.
      local: whether a directory of the official files is expected (or the hub, without one).

    >>> from jaxsmooth.training.data.tasks import Sentence
    >>> task = Task("moods", "classification", "accuracy", source="made up", licence="none", classes=("dull", "fine"))
    >>> entry = Entry(task, lambda folder: Parts({"train": [Sentence("So dull.", label=0)]}))
    >>> len(entry.read(None).splits["train"])
    1
    """

    task: Task
    read: Callable[[Path | None], Parts]
    local: bool = False


def load_task(
    name: str,
    tokenizer: Tokenizer,
    *,
    split: str,
    max_length: int = 128,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    each_token: bool = False,
    columns: str = "",
    missing: Missing = "refuse",
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> TaskData:
    """Read one split of a task.

    Args:
      name: a key of `TASKS`, or a file or folder of the user's own (see `user_tables`).
      tokenizer: the model's.
      split: "train", "validation" or "test".
      max_length: most tokens of a row.
      data_dir: for GLUE, SWAG and SQuAD the folder of the official files; None loads them with `datasets`.
      limit: a fixed sample of so many examples (see `splits.sample`), None for all.
      each_token: for a masked LM, mask every token in turn (pseudo-perplexity).
      columns: of a file of the user's, which column is which (see `user_tables`).
      missing: of a file of the user's, what becomes of rows with a missing cell.
      tasks: of the user's own, by name; they are not kept.

    Returns:
      The split's examples, ready for `make_stream`.

    Raises:
      DataError: an unknown name or split, a split that the data lack, data that cannot be read, or a bad limit.
      AssetError: a corpus that cannot be fetched.
      TextError: a length or a text that the tokenizer refuses.
    """
    chosen = check_split(split)
    require_int("limit", limit, 1, DataError, optional=True)
    task, parts = read_task(name, data_dir=data_dir, columns=columns, missing=missing, tasks=tasks)
    examples = parts.splits.get(chosen)
    if not examples:
        held = [known for known, there in parts.splits.items() if there]
        raise DataError(f"{name} has no {chosen} split; it has {', '.join(held)}.")
    kept = examples if limit is None else sample(examples, limit)
    data = TaskData(task, chosen, kept, tokenizer, max_length, each_token=each_token, notes=parts.notes)
    data.records  # noqa: B018  what the tokenizer refuses is refused here, not at the first batch
    data.records.make([0], 0, 0)
    return data


def read_task(
    name: str,
    *,
    data_dir: str | Path | None = None,
    columns: str = "",
    missing: Missing = "refuse",
    tasks: Mapping[str, Entry] = MappingProxyType({}),
) -> tuple[Task, Parts]:
    """A task and all its splits, without a tokenizer.

    Args:
      name: as for `load_task`.
      data_dir: as for `load_task`.
      columns: as for `load_task`.
      missing: as for `load_task`.
      tasks: as for `load_task`.

    Returns:
      The task, and its examples by split.

    Raises:
      DataError: an unknown name, or data that cannot be read.
      AssetError: a corpus that cannot be fetched.
    """
    folder = None if data_dir is None else Path(data_dir)
    if name in tasks:
        if folder is not None or columns or missing != "refuse":
            raise DataError(f"{name} is a task of your own, which reads its data itself; got a data_dir or columns.")
        return _read_own(name, tasks[name])
    if name not in TASKS:
        path = Path(name)
        if not path.exists() and not is_table(path):
            refuse_address(path, DataError)
            near = did_you_mean(name, TASKS)
            raise DataError(f"there is no task {name!r}, and no such file; the tasks are {', '.join(TASKS)}.{near}")
        if folder is not None:
            raise DataError(f"data_dir is for official files; {name} is a file of your own: name it by its whole path.")
        return read_tables(path, columns, missing)
    entry = TASKS[name]
    if columns or missing != "refuse":
        raise DataError(f"columns and missing are for a file of your own; {name} has its own rules.")
    if folder is not None and not entry.local:
        raise DataError(f"{name} is a pinned corpus and needs no data_dir; got {folder}.")
    if folder is not None and not folder.is_dir():
        refuse_address(folder, DataError)
        raise DataError(f"data_dir must be a folder; there is none at {folder}.")
    parts = entry.read(folder)
    for examples in parts.splits.values():
        counts = {len(example.choices) for example in examples if isinstance(example, Choice)}
        if counts - {entry.task.choices}:
            raise DataError(f"{name}: expected {entry.task.choices} choices in every example; got {sorted(counts)}.")
    return entry.task, parts


def _read_own(name: str, entry: Entry) -> tuple[Task, Parts]:
    """A task of the user's own, checked."""
    if name in TASKS or not isinstance(entry, Entry):
        raise DataError(
            f"a task of your own is name -> Entry(Task(...), reader), under a name that no other has; got {name!r}: "
            f"{type(entry).__name__}."
        )
    parts = entry.read(None)
    return check_own(name, entry.task, parts if isinstance(parts, Parts) else Parts(parts))


def _pinned(
    name: str, asset: str, kind: Kind, metric: str, read: Callable[[str], Parts], what: str, **more: Any
) -> Entry:
    row = REGISTRY[asset]
    source = f"{what}; {row.author}, package {row.distribution.requirement}; a substitute, not a benchmark"
    task = Task(name, kind, metric, source, row.licence, **more)
    return Entry(task, lambda _: read(asset))


def _sentiment(asset: str, what: str) -> list[Entry]:
    classes = corpora.SENTIMENTS
    return [
        _pinned(
            asset, asset, "classification", "accuracy", corpora.read_sentiment, f"sentiment of {what}", classes=classes
        ),
        _pinned(f"{asset}-score", asset, "regression", "pearson", corpora.read_scores, f"sentiment score of {what}"),
        _pinned(f"{asset}-mlm", asset, "masked_lm", "log_likelihood", corpora.read_plain, f"masked words of {what}"),
    ]


def _topics(asset: str, what: str) -> list[Entry]:
    classes = corpora.TOPICS[asset]
    read = functools.partial(corpora.read_topics, classes=classes)
    plain = functools.partial(read, labelled=False)
    return [
        _pinned(asset, asset, "classification", "accuracy", read, f"topic of {what}", classes=classes),
        _pinned(f"{asset}-mlm", asset, "masked_lm", "log_likelihood", plain, f"masked words of {what}"),
    ]


def _wikihow(name: str, part: str, choices: int, what: str) -> Entry:
    read = functools.partial(corpora.read_wikihow, part=part, choices=choices)
    return _pinned(name, "wikihow", "choice", "accuracy", read, what, choices=choices, pairs=True)


def _span(asset: str, what: str) -> Entry:
    return _pinned(asset, asset, "span", "f1", corpora.read_squad, f"answers in {what}", pairs=True)


def _official(task: Task, read: Callable[[Path], Parts]) -> Entry:
    """A benchmark: read from a folder of the official files, or without one through the hub."""
    return Entry(task, lambda folder: read_hub(task.name) if folder is None else read(folder), local=True)


def _glue(short: str) -> Entry:
    table = GLUE[short]
    task = Task(
        f"glue/{short}",
        "classification" if table.classes else "regression",
        table.metric,
        f"GLUE (Wang et al., 2019), {table.folder}; official files or the hub",
        "as each of GLUE's data sets states",
        classes=table.classes,
        positive=1 if table.metric == "f1" else None,
        pairs=bool(table.texts[1]),
    )
    return _official(task, functools.partial(read_glue, short))


def _squad(name: str, version: str) -> Entry:
    task = Task(
        name,
        "span",
        "f1",
        f"SQuAD {version} (Rajpurkar et al., 2016, 2018); official files or the hub",
        "CC BY-SA 4.0",
        unanswerable=version == "2.0",
        pairs=True,
    )
    return _official(task, functools.partial(read_squad_release, version=version))


def _swag() -> Entry:
    source = "SWAG (Zellers et al., 2018); official files or the hub"
    task = Task("swag", "choice", "accuracy", source, "as its authors state", choices=4, pairs=True)
    return _official(task, read_swag)


_ENTRIES = (
    *_sentiment("movie-reviews", "sentences of film reviews"),
    *_sentiment("amazon-reviews", "sentences of product reviews"),
    *_sentiment("tweets", "tweet-like texts"),
    *_sentiment("nyt-editorials", "sentences of editorials"),
    *_topics("newsgroups", "newsgroup posts"),
    *_topics("reuters-r8", "newswire stories"),
    *_topics("reuters-r52", "newswire stories"),
    _pinned(
        *("vitaminc", "vitaminc", "classification", "accuracy", corpora.read_vitaminc),
        "whether a claim follows from a passage",
        classes=corpora.CLAIM_LABELS,
        pairs=True,
    ),
    _pinned(
        *("agreement", "agreement", "classification", "matthews", corpora.read_agreement),
        "whether the verb agrees with its subject",
        classes=corpora.AGREEMENT,
    ),
    _wikihow("wikihow-goals", "goal_inference", 4, "the goal that a step of wikiHow serves"),
    _wikihow("wikihow-steps", "step_inference", 4, "the step of wikiHow that serves a goal"),
    _wikihow("wikihow-order", "step_ordering", 2, "which of two steps of wikiHow comes first"),
    _span("squad-dev", "passages of Wikipedia (the published dev set of SQuAD 1.1, split anew)"),
    _span("squad-wiki", "passages of Wikipedia"),
    _span("squad-nyt", "newspaper articles"),
    _span("squad-reddit", "forum posts"),
    _span("squad-amazon", "product reviews"),
    *(_glue(short) for short in GLUE),
    _squad("squad", "1.1"),
    _squad("squad2", "2.0"),
    _swag(),
)

TASKS: dict[str, Entry] = {entry.task.name: entry for entry in _ENTRIES}
"""Every task by name. Those of pinned corpora are substitutes; glue/*, swag, squad and squad2 are the real ones."""
