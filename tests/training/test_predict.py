"""Predictions can be joined to the lines they are of: for every kind, from lines of text and from tables."""

import dataclasses
import json

import jax
import pytest
from support.training import PLAIN, TASKS, drawn

import jaxsmooth
from jaxsmooth.errors import ConfigError, DataError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.training.export import export_model
from jaxsmooth.training.model import init_task_model
from jaxsmooth.training.predict import predict, write_predictions

SIZES = {"vocab": TINY_VOCAB, "width": 8, "layers": 1, "heads": 1, "mlp_width": 8, "max_length": 64, "pad_token": 0}
CONFIG = jaxsmooth.EncoderConfig(**SIZES)


def exported(kind, folder, **changes):
    """An untrained model of the kind as `finetune` leaves one."""
    task = dataclasses.replace(TASKS[kind], **changes)
    shapes = jax.eval_shape(
        lambda: init_task_model(jaxsmooth.init_encoder(CONFIG, jax.random.key(0)), task, jax.random.key(1))
    )
    settings = dataclasses.replace(PLAIN, max_length=32, batch_size=4)
    return export_model(drawn(shapes), task, Tokenizer.tiny(CONFIG), settings, folder / "best")


@pytest.mark.compatibility(
    "text", "predictions where blank lines were skipped", "each states its line and the text", was=1
)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_predictions_of_lines_state_line_and_text(kind, tmp_path):
    (tmp_path / "a.txt").write_text("\na long film of some words\n\n  \nb\n", encoding="utf-8")
    found = predict(exported(kind, tmp_path), str(tmp_path / "a.txt"))
    joined = [(each["record"], each["line"], each["text"]) for each in found]
    assert joined == [(0, 2, "a long film of some words"), (1, 5, "b")]
    assert all(("label" if kind == "classification" else "value") in each for each in found)


INPUTS = {
    "classification": ("text", "pair"),
    "regression": ("text", "pair"),
    "span": ("question", "context"),
    "choice": ("prompt", "choice0", "choice1"),
}
OUTPUTS = {"classification": "label", "regression": "value", "span": "answer", "choice": "label"}


@pytest.mark.compatibility(
    "table",
    "`predict --data new.csv` (tsv, json), for every kind of task",
    "read by its columns, no labels needed; each prediction states line and texts",
    was=3,
)
@pytest.mark.parametrize("kind", INPUTS)
def test_predictions_of_a_table_state_line_and_texts(kind, tmp_path):
    best = exported(kind, tmp_path, pairs=True)
    columns = INPUTS[kind]
    rows = [{name: "w " * k + name for name in columns} for k in (9, 1, 5)]
    (tmp_path / "a.csv").write_text(
        ",".join(columns) + "\n" + "\n\n".join(",".join(row.values()) for row in rows) + "\n", encoding="utf-8"
    )
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    of_csv, of_json = (predict(best, str(tmp_path / name)) for name in ("a.csv", "a.jsonl"))
    assert [each["line"] for each in of_csv] == [2, 4, 6]
    assert [each["line"] for each in of_json] == [1, 2, 3]
    for each, row in zip(of_csv, rows, strict=True):
        shown = {name: each[name] for name in columns if name in each}
        if kind == "choice":
            shown |= dict(zip(columns[1:], each["choices"], strict=True))
        assert shown == row
        assert OUTPUTS[kind] in each
    assert [{**each, "line": 0} for each in of_csv] == [{**each, "line": 0} for each in of_json]


@pytest.mark.compatibility(
    "table",
    "`predict` on a table with a missing cell",
    "`predict --missing skip` or `literal`; the refusal named a flag it lacked",
    was=4,
)
def test_columns_of_predictions(tmp_path):
    best = exported("regression", tmp_path)
    (tmp_path / "a.tsv").write_text("n\treview\n1\tso\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has no column 'text'; its columns are \['n', 'review'\]"):
        write_predictions(best, str(tmp_path / "a.tsv"), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert write_predictions(best, str(tmp_path / "a.tsv"), tmp_path / "out.jsonl", columns="text=review") == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "so"
    (tmp_path / "a.tsv").write_text("text\nso\nNA\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: text is missing.*--missing skip"):
        predict(best, str(tmp_path / "a.tsv"))
    assert [each["text"] for each in predict(best, str(tmp_path / "a.tsv"), missing="literal")] == ["so", "NA"]
    with pytest.raises(ConfigError, match="no table, so it has no columns"):
        predict(best, "tiny", columns="text=review")


@pytest.mark.compatibility(
    "long", "a damaged record in the middle of the data to predict on", "refused with its line, nothing written", was=0
)
def test_a_damaged_record_writes_nothing(tmp_path):
    best = exported("regression", tmp_path)
    for name, content in [("a.txt", b"so\n" * 50 + b"\xff\n"), ("a.jsonl", b'{"text": "so"}\n' * 50 + b'{"text"\n')]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(jaxsmooth.JaxsmoothError, match=rf"{name}, line 51: "):
            write_predictions(best, str(tmp_path / name), tmp_path / "out" / "p.jsonl")
    assert not (tmp_path / "out").exists()
