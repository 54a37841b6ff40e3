"""Answers and choices that are missing, empty or miscounted."""

import json

import pytest

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import read_task
from jaxsmooth.training.data.tasks import Question

ASKED = {"question": "Where?", "context": "The cat sat on the mat."}


def read(path, content: str, **options) -> list:
    path.write_text(content, encoding="utf-8")
    parts = read_task(str(path), **options)[1].splits
    return sorted((each for part in parts.values() for each in part), key=lambda each: each.line)


@pytest.mark.compatibility("table", "SQuAD's nested JSON (1.1 and 2.0) as a file of one's own", "read", was=3)
@pytest.mark.parametrize("indent", [None, 2])
def test_squads_own_form(indent, tmp_path):
    there = {"id": "a", "question": "Where?", "answers": [{"text": "on the mat", "answer_start": 12}]}
    nowhere = {"id": "b", "question": "Why?", "is_impossible": True, "answers": [], "plausible_answers": []}
    article = {"title": "T", "paragraphs": [{"context": ASKED["context"], "qas": [there, nowhere]}]}
    found = read(tmp_path / "a.json", json.dumps({"version": "v2.0", "data": [article]}, indent=indent))
    assert found == [
        Question(**ASKED, answers=("on the mat",), starts=(12,), id="a"),
        Question("Why?", ASKED["context"], (), (), id="b"),
    ]


@pytest.mark.compatibility("table", "answers whose starts pandas wrote as 4.0 and nan", "read", was=3)
def test_starts_as_pandas_writes_them(tmp_path):
    table = "question,context,answer,start\nWho?,The cat sat.,cat,4.0\nWhy?,The cat sat.,nan,nan\n"
    assert [each.starts for each in read(tmp_path / "a.csv", table)] == [(4,), ()]


ANSWERS = [
    ({"answers": {"text": [""], "answer_start": [0]}}, "an answer is empty"),
    ({"answer": "cat", "start": 4.7}, "whole numbers; got .*4.7"),
    ({"answer": "h", "start": True}, "whole numbers; got .*True"),
]


@pytest.mark.compatibility(
    "table", "an answer that is empty, a start that is 4.7 or true", "refused with its row", was=1
)
@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
def test_answers_that_are_none(answer, expected, tmp_path):
    with pytest.raises(DataError, match=f"line 1: .*{expected}"):
        read(tmp_path / "a.jsonl", json.dumps(ASKED | answer) + "\n")


CHOICES = [
    ("prompt,choice0,choice1,label\np,a,,0\n", "", "line 2: choice1 is missing"),
    ("prompt,choice0,choice1,label\np,a,nan,0\n", "", "line 2: choice1 is missing"),
    ("prompt,choice1,choice2,label\np,a,b,0\n", "", r"counted from choice0.*got \['choice1', 'choice2'\]"),
    ("s,a,b,c,y\np,a,b,c,1\n", "prompt=s,choice0=a,choice1=b,choice3=c,label=y", "without a gap"),
]


@pytest.mark.compatibility("table", "a choice whose cell is blank or nan", "refused with its row", was=1)
@pytest.mark.compatibility("table", "choices counted from 1, or with a gap", "refused: labels count from 0", was=1)
@pytest.mark.parametrize(("table", "columns", "expected"), CHOICES)
def test_choices_that_are_none(table, columns, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "a.csv", table, columns=columns)
