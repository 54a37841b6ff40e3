"""The table of tasks: names, sources, metrics, and what is refused."""

import json

import pytest
from support.tasks import TOKENIZER

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import TASKS, load_task


def test_the_table_names_what_there_is():
    for name, entry in TASKS.items():
        assert entry.task.name == name
        assert entry.task.source
        assert entry.task.licence
        assert entry.task.outputs >= (0 if entry.task.kind == "masked_lm" else 1)
        benchmark = name.startswith("glue/") or name in ("squad", "squad2", "swag")
        assert entry.local is benchmark
        assert ("a substitute, not a benchmark" in entry.task.source) is not benchmark


def test_metrics_are_glues_own():
    chosen = {name.removeprefix("glue/"): e.task.metric for name, e in TASKS.items() if name.startswith("glue/")}
    others = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "spearman"}
    assert chosen == {name: others.get(name, "accuracy") for name in chosen}
    assert TASKS["glue/mrpc"].task.positive == 1


def test_unknown_names_list_the_tasks():
    with pytest.raises(DataError, match=r"no task 'sst2', and no such file; the tasks are movie-reviews, .*glue/sst2"):
        load_task("sst2", TOKENIZER, split="train")
    with pytest.raises(DataError, match="no split 'dev'; the splits are train, validation, test"):
        load_task("movie-reviews", TOKENIZER, split="dev")
    with pytest.raises(DataError, match="limit must be"):
        load_task("movie-reviews", TOKENIZER, split="train", limit=0)


def test_a_limit_takes_a_sample(tmp_path):
    rows = ({"text": f"t{k}", "label": k % 2} for k in range(9))
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_task(str(tmp_path), TOKENIZER, split="train", max_length=48, limit=4)
    assert [example.text for example in data.examples] == ["t0", "t3", "t4", "t8"]
