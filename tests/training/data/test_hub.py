"""GLUE, SWAG and SQuAD through a substitute for the `datasets` library."""

import sys
import types

import pytest

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import read_task
from jaxsmooth.training.data.tasks import Choice, Question, Sentence


@pytest.fixture
def hub(monkeypatch):
    """A substitute for the `datasets` library: rows in the columns of the hub's copies."""
    loads = []
    rows = {
        ("nyu-mll/glue", "mnli"): {
            "train": [{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}],
            "validation_matched": [{"premise": "c", "hypothesis": "d", "label": 0, "idx": 1}],
            "validation_mismatched": [{"premise": "e", "hypothesis": "f", "label": 1, "idx": 2}],
            "test_matched": [{"premise": "g", "hypothesis": "h", "label": -1, "idx": 3}],
        },
        ("nyu-mll/glue", "stsb"): {
            "train": [{"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}],
            "test": [{"sentence1": "a", "sentence2": "b", "label": -1.0, "idx": 0}],
        },
        ("rajpurkar/squad_v2",): {
            "train": [
                {
                    "id": "w",
                    "context": "In Paris.",
                    "question": "Where?",
                    "answers": {"text": ["Paris"], "answer_start": [3]},
                },
                {"id": "n", "context": "In Paris.", "question": "Who?", "answers": {"text": [], "answer_start": []}},
            ]
        },
        ("allenai/swag", "regular"): {
            "train": [{"sent1": "A.", "sent2": "B", **{f"ending{k}": str(k) for k in range(4)}, "label": 3}]
        },
    }

    def load_dataset(*arguments):
        loads.append(arguments)
        if arguments not in rows:
            raise ConnectionError("no route to host")
        return rows[arguments]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return loads


def test_hub(hub):
    assert read_task("glue/mnli")[1].splits == {
        "train": [Sentence("a", pair="b", label=2, id="0")],
        "validation": [Sentence("c", pair="d", label=0, id="1")],
        "test": [Sentence("g", pair="h", id="3")],
    }
    assert read_task("glue/mnli-mm")[1].splits["validation"] == [Sentence("e", pair="f", label=1, id="2")]
    assert [part[0].label for part in read_task("glue/stsb")[1].splits.values()] == [2.5, None]
    assert read_task("squad2")[1].splits["train"] == [
        Question("Where?", "In Paris.", ("Paris",), (3,), id="w"),
        Question("Who?", "In Paris.", (), (), id="n"),
    ]
    assert read_task("swag")[1].splits["train"] == [Choice("A.", ("B 0", "B 1", "B 2", "B 3"), 3)]
    assert hub[0] == ("nyu-mll/glue", "mnli")


def test_hub_out_of_reach(hub, monkeypatch):
    with pytest.raises(DataError, match=r"could not load nyu-mll/glue/cola: no route to host\. Is this machine online"):
        read_task("glue/cola")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="give a directory in the official format, or `pip install datasets`"):
        read_task("glue/cola")
