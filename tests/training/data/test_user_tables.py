"""A user's own TSV, CSV, JSON lines and parquet."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from support.tasks import TOKENIZER

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import load_task, read_task
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.tasks import Choice, Question, Sentence


def write(path, rows: list[dict]) -> str:
    """The rows in the format of the path's suffix, written without the library."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(mark.join(map(str, line)) + "\n" for line in [rows[0], *(r.values() for r in rows)]))
    return str(path)


SUFFIXES = pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])


@SUFFIXES
def test_a_folder_with_splits(tmp_path, suffix):
    write(tmp_path / f"train{suffix}", [{"id": k, "text": f"t{k}", "pair": f"p{k}", "label": 10 - k} for k in range(3)])
    write(tmp_path / f"dev{suffix}", [{"id": 9, "text": "v", "pair": "w", "label": 9}])
    task, parts = read_task(str(tmp_path))
    assert (task.kind, task.classes, task.pairs, task.metric) == ("classification", ("8", "9", "10"), True, "accuracy")
    assert parts.splits["train"][0] == Sentence("t0", pair="p0", label=2, id="0")
    assert parts.splits["validation"] == [Sentence("v", pair="w", label=1, id="9")]
    assert "test" not in parts.splits


@SUFFIXES
def test_a_file_is_split_by_its_text(tmp_path, suffix):
    rows = [{"text": f"sentence {k % 150}", "score": k / 2} for k in range(300)]
    task, parts = read_task(write(tmp_path / f"mine{suffix}", rows))
    assert (task.name, task.kind, task.metric) == ("mine", "regression", "pearson")
    texts = {side: {example.text for example in part} for side, part in parts.splits.items()}
    assert sum(map(len, parts.splits.values())) == 300
    assert sum(map(len, texts.values())) == 150
    assert all(texts.values())


def test_names_of_classes_and_a_stream(tmp_path):
    rows = [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}, {"text": "so so", "label": "neg"}]
    write(tmp_path / "train.jsonl", rows)
    data = load_task(str(tmp_path), TOKENIZER, split="train", max_length=48)
    assert data.task.classes == ("neg", "pos")
    with make_stream(data, batch_size=3, shuffle=False, pool=1, epochs=1, threads=0) as stream:
        assert next(stream).labels.tolist() == [1, 0, 0]


def test_questions_in_three_spellings(tmp_path):
    expected = Question("where?", "in Paris", ("Paris",), (3,), id="1")
    base = {"id": "1", "question": "where?", "context": "in Paris"}
    spellings = [
        {"answer": "Paris", "start": 3},
        {"answers": ["Paris"], "starts": [3]},
        {"answers": {"text": ["Paris"], "answer_start": [3]}},
    ]
    for spelling in spellings:
        write(tmp_path / "train.jsonl", [base | spelling])
        task, parts = read_task(str(tmp_path))
        assert parts.splits["train"] == [expected]
        assert (task.kind, task.unanswerable, task.metric) == ("span", False, "f1")
    write(tmp_path / "train.jsonl", [base | {"answers": [], "starts": []}])
    assert read_task(str(tmp_path))[0].unanswerable


def test_choices_in_two_spellings(tmp_path):
    (tmp_path / "train.tsv").write_text("prompt\tchoice0\tchoice1\tchoice2\tlabel\np\ta\tb\tc\t2\n")
    task, parts = read_task(str(tmp_path))
    assert (task.kind, task.choices) == ("choice", 3)
    (tmp_path / "train.tsv").unlink()
    write(tmp_path / "train.jsonl", [{"prompt": "p", "choices": ["a", "b", "c"], "label": 2}])
    assert read_task(str(tmp_path))[1].splits == parts.splits
    assert parts.splits["train"] == [Choice("p", ("a", "b", "c"), 2, id="1")]


def test_text_alone_is_masked_lm(tmp_path):
    path = write(tmp_path / "corpus.jsonl", [{"text": f"line {k}"} for k in range(20)])
    assert read_task(path)[0].kind == "masked_lm"


BAD = [
    ('{"text": "a", "label": 1}\n', "at least two labels"),
    ('{"text": 3, "label": 1}\n{"text": "b", "label": 2}\n', r"row 1: text must be a string; got 3"),
    ('{"text": "a", "score": "high"}\n', "row 1: score must be a finite number; got 'high'"),
    ('{"text": "a", "score": NaN}\n', "score must be a finite number"),
    ('{"words": "a"}\n', r"the columns \['words'\] describe no task"),
    ('{"text": "a"}\n{"text"\n', "line 2: not JSON"),
    ("[1]\n", "line 1: expected a JSON object; got list"),
    ("\n", "holds no rows"),
    ('{"question": "q", "context": "c", "answers": ["d"], "starts": [0]}\n', "'d' is not at character 0"),
    ('{"question": "q", "context": "c", "answers": ["c"], "starts": []}\n', "as many answers as starts"),
    ('{"question": "q", "context": "c", "answers": ["c"]}\n', "as many answers as starts"),
    ('{"prompt": "p", "choices": ["a"], "label": 0}\n', "at least two strings as choices"),
    ('{"prompt": "p", "choices": ["a", 3], "label": 0}\n', "row 1: a choice must be a string; got 3"),
    ('{"text": "\\ud800"}\n', "row 1: text holds half a surrogate pair"),
    ('{"prompt": "p", "choices": ["a", "b"], "label": 2}\n', "from 0 to 1; got '2'"),
    (
        '{"prompt": "p", "choices": ["a", "b"], "label": 0}\n{"prompt": "p", "choices": ["a", "b", "c"], "label": 0}\n',
        r"same number of choices; got \[2, 3\]",
    ),
]


@pytest.mark.parametrize(("content", "expected"), BAD)
def test_rows_that_do_not_fit(tmp_path, content, expected):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match=expected):
        read_task(str(tmp_path))


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match=r"must hold train\.tsv, \.csv, \.jsonl or \.parquet"):
        read_task(str(tmp_path))
    (tmp_path / "train.tsv").write_text("text\tlabel\na\tb\tc\n")
    with pytest.raises(DataError, match="line 2: expected 2 columns"):
        read_task(str(tmp_path))
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"holds both train\.tsv and train\.csv"):
        read_task(str(tmp_path))
    with pytest.raises(DataError, match="must end in one of"):
        read_task(__file__)
    with pytest.raises(DataError, match="there is no file"):
        read_task("absent.jsonl")


def test_an_unseen_class_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write(tmp_path / "test.jsonl", [{"text": "a", "label": "z"}])
    with pytest.raises(DataError, match=r"test\.jsonl, row 1: the label 'z' does not occur in the training file"):
        read_task(str(tmp_path))
