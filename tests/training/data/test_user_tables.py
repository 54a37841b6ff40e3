"""A user's own TSV, CSV, JSON lines and parquet."""

import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support.tasks import TOKENIZER, make_task

from jaxsmooth.assets import MalformedRowWarning
from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import load_task, read_task
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.tasks import Choice, Question, Sentence
from jaxsmooth.training.data.user_tables import read_unlabelled


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


def examples(path, **options) -> list:
    """All examples of a file, in its order."""
    parts = read_task(str(path), **options)[1].splits
    return sorted((example for part in parts.values() for example in part), key=lambda example: example.line)


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
    ('{"text": 3, "label": 1}\n{"text": "b", "label": 2}\n', "line 1: text must be a string; got 3"),
    ('{"text": "a", "score": "high"}\n', "line 1: score must be a finite number; got 'high'"),
    ('{"text": "a", "score": NaN}\n', "line 1: score is missing; got nan"),
    ('{"text": "a", "score": Infinity}\n', "score must be a finite number"),
    ('{"text": "a", "score": true}\n', "score must be a finite number; got True"),
    ('{"text": "a", "score": "1_0"}\n', "score must be a finite number; got '1_0'"),
    ('{"words": "a"}\n', r"the columns \['words'\] describe no task"),
    ('{"text": "a"}\n{"text"\n', "line 2: not JSON"),
    ("[1]\n", "row 1: expected a JSON object; got int"),
    ('{"text": {"0": "a"}, "score": 1}\n', "must be a string; got .*written column by column"),
    ('{"question": "q", "context": "c", "answers": "c", "starts": [0]}\n', "two lists"),
    ('{"question": null, "context": "c", "answers": ["c"], "starts": [0]}\n', "question is missing; got None"),
    ('{"prompt": "p", "choices": ["a", "b"], "label": null}\n', "label is missing"),
    ("\n", "holds no rows"),
    ('{"question": "q", "context": "c", "answers": ["d"], "starts": [0]}\n', "'d' is not at character 0"),
    ('{"question": "q", "context": "c", "answers": ["c"], "starts": []}\n', "as many answers as starts"),
    ('{"question": "q", "context": "c", "answers": ["c"]}\n', "as many answers as starts"),
    ('{"prompt": "p", "choices": ["a"], "label": 0}\n', "at least two strings as choices"),
    ('{"prompt": "p", "choices": ["a", 3], "label": 0}\n', "line 1: a choice must be a string; got 3"),
    ('{"text": "\\ud800"}\n', "line 1: text holds half a surrogate pair"),
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
    with pytest.raises(DataError, match=r"must hold train, as \.csv, .*; it holds nothing"):
        read_task(str(tmp_path))
    (tmp_path / "train.tsv").write_text("text\tlabel\na\tb\tc\n")
    with pytest.raises(DataError, match="line 2: expected 2 cells"):
        read_task(str(tmp_path))
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"holds both train\.csv and train\.tsv"):
        read_task(str(tmp_path))
    with pytest.raises(DataError, match="must end in one of"):
        read_task(__file__)
    with pytest.raises(DataError, match="there is no file"):
        read_task("absent.jsonl")


def test_an_unseen_class_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write(tmp_path / "test.jsonl", [{"text": "a", "label": "z"}])
    with pytest.raises(DataError, match=r"test\.jsonl, line 1: the label 'z' does not occur in the training file"):
        read_task(str(tmp_path))


NO_LABEL = [
    "labels",
    " label",
    "Label",
    "LABEL",
    "target",
    "sentiment",
    "class",
    "stars",
    "category",
    "y",
    "gold",
    "date",
]


@pytest.mark.compatibility(
    "table",
    "columns text + labels, ` label`, Label, target, sentiment ...",
    "refused, naming the columns and `--columns`; was trained as a masked LM",
    was=1,
)
@pytest.mark.compatibility(
    "table", "columns text + pair without a label", "refused; was trained as a masked LM on the first text", was=1
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_nothing_is_guessed_from_what_is_left_over(suffix, tmp_path):
    for name in [*NO_LABEL, "pair"]:
        path = write(tmp_path / f"a{suffix}", [{"text": f"t{k}", name: k % 2} for k in range(4)])
        with pytest.raises(DataError) as caught:
            read_task(path)
        said = str(caught.value)
        assert f"the columns {['text', name]} describe no task. Expected text with label or score" in said
        guess = (
            "text=text,pair=pair,label=NAME"
            if name == "pair"
            else f"text=text,label={'NAME' if name == 'date' else name}"
        )
        assert f"--columns {guess};" in said
        assert "for a masked LM: --columns text=text." in said
        if name != "pair":
            assert read_task(path, columns=f"text=text,label={name}")[0].classes == ("0", "1")
        assert read_task(path, columns="text=text")[0].kind == "masked_lm"


@pytest.mark.compatibility(
    "table",
    "columns review + stars, sentence + label ...",
    "refused with `--columns text=review,label=stars`, which reads them",
    was=4,
)
def test_columns_are_named_by_the_user(tmp_path):
    rows = [{"review": f"t{k}", "stars": k % 3, "reply": f"r{k}"} for k in range(6)]
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match="--columns text=review,label=stars;"):
        read_task(path)
    task, _ = read_task(path, columns="text=review,label=stars")
    assert (task.kind, task.classes, task.pairs) == ("classification", ("0", "1", "2"), False)
    assert read_task(path, columns="text=review,score=stars,pair=reply")[0].kind == "regression"
    assert examples(path, columns="text=review,score=stars,pair=reply,id=stars")[1] == Sentence("t1", "r1", 1.0, id="1")
    for columns, expected in [
        ("text=reviews,label=stars", "has no column 'reviews'; its columns are"),
        ("txt=review,label=stars", "there is no 'txt' to map a column to"),
        ("text=review,label=stars,prompt=reply", "a classification task has no prompt"),
        ("label=stars", "describe no task"),
    ]:
        with pytest.raises(DataError, match=expected):
            read_task(path, columns=columns)
    with pytest.raises(DataError, match="movie-reviews has its own rules"):
        read_task("movie-reviews", columns="text=review")


@pytest.mark.compatibility(
    "table", "columns text, text_pair (sentence2, text_b ...), label", "refused; the second text was not read", was=1
)
@pytest.mark.compatibility(
    "table", "columns text, label and score", "refused as two tasks; the score was not read", was=1
)
@pytest.mark.compatibility("table", "an index column without a name or as `Unnamed: 0`", "not read", was=0)
def test_columns_beside_those_that_are_read(tmp_path):
    def rows(*names):
        return [dict.fromkeys(names, "x") | {"text": f"t{k}", "label": k % 2} for k in range(4)]

    for name in ("text_pair", "text2", "text_b", "sentence2", "hypothesis", "Text", "label "):
        with pytest.raises(DataError, match=f"'{name}'. may be meant too.*--columns text=text,label=label leaves"):
            read_task(write(tmp_path / "a.csv", rows(name)))
    assert read_task(str(tmp_path / "a.csv"), columns="text=text,label=label")[0].kind == "classification"
    with pytest.raises(DataError, match="describe classification and regression at once"):
        read_task(write(tmp_path / "a.csv", rows("score")))
    assert read_task(write(tmp_path / "a.csv", rows("", "date", "author")))[0].classes == ("0", "1")
    for index in ("", "Unnamed: 0", "id"):
        path = write(tmp_path / "a.csv", [{index: k, "text": f"t{k}"} for k in range(4)])
        assert read_task(path)[0].kind == "masked_lm"


@pytest.mark.compatibility("table", "cells separated by `;` or tabs in a .csv", "refused, naming the separator", was=4)
@pytest.mark.compatibility("table", "a CSV without a header", "refused, asking for it", was=4)
def test_a_header_that_is_none(tmp_path):
    for content, expected in [
        ("text;label\na;1\n", "separated by ';'"),
        ("text\tlabel\na\t1\n", r"separated by '\\t'"),
        ("sep=;\ntext;label\n", "separated by ';'"),
        ("a fine film,1\ndull,0\n", "Does the first line name the columns"),
    ]:
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(DataError, match=expected):
            read_task(str(tmp_path / "a.csv"))
    (tmp_path / "a.tsv").write_text('"text"\t"label"\n"a"\t"1"\n')
    with pytest.raises(DataError, match="Is it quoted"):
        read_task(str(tmp_path / "a.tsv"))


MISSING = ["", "  ", "nan", "NaN", "NA", "N/A", "null", "NULL", "None", "<NA>"]


@pytest.mark.compatibility(
    "table",
    "a missing label: an empty cell, white space, nan, NA, null, None",
    "refused with its line, or left out and counted (`--missing skip`); was a class of its own",
    was=1,
)
@pytest.mark.compatibility(
    "table",
    "a missing text: an empty cell, white space, nan, NA, null, None",
    "refused with its line, or left out and counted; was trained on",
    was=1,
)
@pytest.mark.parametrize("role", ["text", "pair", "label"])
def test_a_missing_cell_of_a_csv(role, tmp_path):
    whole = [{"text": f"t{k}", "pair": f"p{k}", "label": "ab"[k % 2]} for k in range(4)]
    for word in MISSING:
        path = write(tmp_path / "a.csv", [*whole, whole[0] | {role: word}, *whole])
        with pytest.raises(DataError, match=f"line 6: {role} is missing; got {word!r}.*--missing skip"):
            read_task(path)
        with pytest.warns(
            MalformedRowWarning, match=r"left out: 1 rows of .*a\.csv with a missing cell, the first in line 6"
        ):
            task, parts = read_task(path, missing="skip")
        assert task.classes == ("a", "b")
        assert any("left out: 1 rows" in note for note in parts.notes)
        assert sum(map(len, parts.splits.values())) == 8
        if word.strip():
            task, _ = read_task(path, missing="literal")
            assert len(task.classes) == 2 + (role == "label")
            assert word in (task.classes if role == "label" else getattr(examples(path, missing="literal")[4], role))
        else:
            with pytest.raises(DataError, match=f"{role} is missing"):
                read_task(path, missing="literal")


@pytest.mark.compatibility(
    "table",
    "a missing label in JSON or parquet: null, NaN, no such key",
    "refused with its line; was the class None",
    was=1,
)
@pytest.mark.compatibility(
    "table",
    "JSON lines, of which the first lacks the label",
    "refused with its line; was trained as a masked LM",
    was=1,
)
def test_a_missing_cell_of_json_and_parquet(tmp_path):
    whole = [{"text": f"t{k}", "label": "ab"[k % 2]} for k in range(4)]
    for bad in ({"label": None}, {"label": math.nan}, {"label": ""}, None):
        row = {"text": "x"} if bad is None else {"text": "x"} | bad
        for rows, line in (([*whole, row], 5), ([row, *whole], 1)):
            path = write(tmp_path / "a.jsonl", rows)
            with pytest.raises(DataError, match=f"line {line}: label is missing; got (None|nan|'')"):
                read_task(path)
    for labels in (["a", "b", None], [0, 1, None], [0.0, 1.0, math.nan]):
        path = write(tmp_path / "a.parquet", [{"text": "x", "label": label} for label in labels])
        with pytest.raises(DataError, match="row 3: label is missing"):
            read_task(path)
    with pytest.raises(DataError, match="no row is whole"):
        read_task(write(tmp_path / "a.jsonl", [{"text": "", "label": 1}]), missing="skip")
    assert [e.id for e in examples(write(tmp_path / "a.jsonl", [w | {"id": None} for w in whole]))] == [
        "1",
        "2",
        "3",
        "4",
    ]


LABELS = [
    ([1, "1", 2], "all strings, all whole numbers or all booleans; got 1 .* line 1. and '1' .* line 2."),
    ([1, True, 0], "all strings, all whole numbers or all booleans"),
    ([1, 2.0, 1], "line 2: label must be a string or a whole number; got 2.0.*--columns text=NAME,score=NAME"),
    ([0.5, 1.5], "To regress on numbers"),
    ([["a", "b"], ["a"]], "line 1: label must be .*several are not supported"),
    ([{"a": 1}, "b"], "line 1: label must be a string or a whole number; got {'a': 1}"),
    (["0.5", "1", "2"], "line 1: the labels are numbers, and '0.5' is not whole.*score"),
    (["1", "1.0", "0"], "line 2: the labels are numbers, and '1.0' is not whole"),
    (["pos", "neg", "Pos "], "differ in case, spaces or zeros alone .*'pos' .*line 1. and 'Pos ' .*line 3"),
    (["1", "01", "2"], "differ in case, spaces or zeros alone"),
    ([f"user{k}" for k in range(30)], "no two of its 30 rows share a label"),
    (["a", "a"], r"at least two labels; got \['a'\]"),
]


@pytest.mark.compatibility(
    "table", "labels of mixed types (1, '1', true)", "refused with two lines; were classes of their own", was=1
)
@pytest.mark.compatibility(
    "table", "labels with a fraction (0.5, 1.0)", "refused: a number to regress on is `score`; were classes", was=1
)
@pytest.mark.compatibility(
    "table", "labels that differ in case or spaces alone", "refused with their lines; were classes of their own", was=1
)
@pytest.mark.compatibility(
    "table", "several labels in one cell (a JSON list)", "refused with its line; was a class", was=1
)
@pytest.mark.compatibility("table", "a label of its own for every row (ids)", "refused", was=1)
@pytest.mark.compatibility("table", "one class only", "refused", was=0)
@pytest.mark.parametrize(("labels", "expected"), LABELS, ids=[repr(labels[:3]) for labels, _ in LABELS])
def test_labels_that_are_no_classes(labels, expected, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": f"t{k}", "label": label} for k, label in enumerate(labels)])
    with pytest.raises(DataError, match=expected):
        read_task(path)


def test_booleans_and_words_that_are_numbers_in_part_are_classes(tmp_path):
    for labels, classes in [
        ([True, False], ("False", "True")),
        (["1", "2", "x"], ("1", "2", "x")),
        ([-1, 1], ("-1", "1")),
    ]:
        path = write(tmp_path / "a.jsonl", [{"text": f"t{k}", "label": label} for k, label in enumerate(labels)])
        assert sorted(read_task(path)[0].classes) == sorted(classes)


@pytest.mark.compatibility("table", "a test file without labels", "read, for predictions", was=3)
@pytest.mark.compatibility("table", "a folder with `valid.csv`", "is the validation split; was passed over", was=1)
@pytest.mark.compatibility(
    "table", "a folder with Train.csv, or with the hub's train-00000-of-00001.parquet", "read", was=3
)
def test_other_names_of_a_folders_files(tmp_path):
    rows = [{"text": f"t{k}", "label": k % 2} for k in range(4)]
    for folder, names in (("a", ("Train.csv", "VALID.csv")), ("b", ("train-00000-of-00001.parquet", "dev.tsv"))):
        (tmp_path / folder).mkdir()
        for name in names:
            write(tmp_path / folder / name, rows)
        assert {split: len(part) for split, part in read_task(str(tmp_path / folder))[1].splits.items()} == {
            "train": 4,
            "validation": 4,
        }


@pytest.mark.compatibility(
    "table", "a test file whose label's column is spelled otherwise (Label)", "refused; was without labels", was=1
)
@pytest.mark.compatibility(
    "table", "a validation file without the label's column", "refused, naming its columns", was=4
)
def test_the_other_files_of_a_folder(tmp_path):
    write(tmp_path / "train.csv", [{"text": f"t{k}", "label": k % 2} for k in range(4)])
    write(tmp_path / "valid.csv", [{"label": 1, "text": "v"}])
    write(tmp_path / "test.tsv", [{"id": 7, "text": "x"}])
    splits = read_task(str(tmp_path))[1].splits
    assert splits["validation"] == [Sentence("v", label=1, id="1")]
    assert (splits["test"], splits["test"][0].line) == ([Sentence("x", id="1")], 2)
    (tmp_path / "test.tsv").unlink()
    write(tmp_path / "test.csv", [{"Labels": 1, "text": "v"}])
    with pytest.raises(DataError, match=r"test.csv has no column 'label'.*'Labels'"):
        read_task(str(tmp_path))
    write(tmp_path / "valid.csv", [{"labels": 1, "text": "v"}])
    with pytest.raises(
        DataError, match=r"valid.csv has no column 'label', which the training data have; its columns are"
    ):
        read_task(str(tmp_path))


@pytest.mark.compatibility(
    "long", "a damaged record in the middle of the training data", "refused with its line before the first step", was=0
)
@pytest.mark.parametrize(
    "damage", [b'{"text": "a"', b'{"text": "\xff", "label": 1}', b"\0\0\0\0", b'{"text": 3, "label": 1}']
)
def test_a_damaged_record_in_the_middle(damage, tmp_path):
    lines = [json.dumps({"text": f"t{k}", "label": k % 2}).encode() for k in range(200)]
    lines[150] = damage
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"train\.jsonl, line 151: "):
        load_task(str(tmp_path), TOKENIZER, split="train", max_length=48)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


@SUFFIXES
def test_a_table_to_predict_on_needs_no_labels(suffix, tmp_path):
    made = {kind: make_task(kind, choices=2 if kind == "choice" else 1) for kind in ("regression", "span", "choice")}
    texts = write(tmp_path / f"a{suffix}", [{"review": "x", "id": "k"}, {"review": "y", "id": "l"}])
    found = read_unlabelled(Path(texts), made["regression"], "text=review,label=gone")
    begin = 1 if suffix in (".jsonl", ".parquet") else 2
    assert found == [Sentence("x", id="k"), Sentence("y", id="l")]
    assert [example.line for example in found] == [begin, begin + 1]
    with pytest.raises(
        DataError, match=r"has no column 'text'; its columns are \['review', 'id'\].*--columns text=review"
    ):
        read_unlabelled(Path(texts), made["regression"])
    questions = write(tmp_path / f"b{suffix}", [{"question": "q", "context": "c"}])
    assert read_unlabelled(Path(questions), made["span"]) == [Question("q", "c", (), (), id="1")]
    choices = write(tmp_path / f"c{suffix}", [{"prompt": "p", "choice0": "a", "choice1": "b"}])
    assert read_unlabelled(Path(choices), made["choice"]) == [Choice("p", ("a", "b"), None, id="1")]
    with pytest.raises(DataError, match="expected 3 choices in every row"):
        read_unlabelled(Path(choices), make_task("choice", choices=3))
    pairs = write(tmp_path / f"d{suffix}", [{"text": "a", "pair": "b"}])
    assert read_unlabelled(Path(pairs), make_task(pairs=True)) == [Sentence("a", pair="b", id="1")]
