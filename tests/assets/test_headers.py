"""Tables that are named as text, and headers that commas do not part."""

import pytest

from jaxsmooth.assets import read_texts
from jaxsmooth.assets.headers import TableAsTextWarning
from jaxsmooth.assets.tables import read_table
from jaxsmooth.errors import DataError, TextError

TABLES = {
    "IMDB's CSV": ("review,sentiment\nfine,positive\n", "of the columns"),
    "SNLI's release": ("gold_label\tsentence1\tsentence2\nneutral\ta\tb\n", "of the columns"),
    "a spreadsheet's": ('\ufeff"id";"text"\r\n1;a\r\n', "of the columns"),
    "JSON lines": ('{"text": "a"}\n', "is JSON"),
    "a JSON list": ('[\n  {"text": "a"}\n]\n', "is JSON"),
    "fastText": ("__label__pos fine\n", "is in fastText's form"),
    "CoNLL": ("-DOCSTART- -X- O O\n\nEU NNP\n", "is CoNLL"),
    "XML": ('<?xml version="1.0"?>\n<s>a</s>\n', "is XML"),
    "lines of old Macs": ("one\rtwo\r", "end in CR alone"),
}


@pytest.mark.compatibility(
    "text", "a table, JSON lines, CoNLL, fastText or XML named .txt, or through a pipe", "refused by its name", was=1
)
@pytest.mark.compatibility("text", "a text whose lines end in CR alone", "refused; was one sentence", was=1)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_named_as_text(name, tmp_path):
    content, expected = TABLES[name]
    (tmp_path / "a.txt").write_bytes(content.encode())
    with pytest.raises(TextError, match=expected):
        read_texts(tmp_path / "a.txt")


@pytest.mark.compatibility("text", "a first line with a tab (Tatoeba, Leipzig, CoLA)", "read, with a warning", was=1)
def test_a_tab_is_warned_of(tmp_path):
    (tmp_path / "a.txt").write_text("1\tA sentence.\n")
    with pytest.warns(TableAsTextWarning, match="the first line holds a tab"):
        assert read_texts(tmp_path / "a.txt") == ["1\tA sentence."]


def test_prose_is_read(tmp_path):
    for line in ("Text, like a label, is nothing.", "[1] A note", "[laughs] Yes", "{sic} x", "Review: good, label it"):
        (tmp_path / "a.txt").write_text(line + "\nid,text\n")
        assert read_texts(tmp_path / "a.txt") == [line, "id,text"]


@pytest.mark.compatibility(
    "table", "cells separated by `;`, commas inside them (Excel in Europe)", "refused, naming the separator", was=4
)
def test_a_separator_is_seen_in_the_header(tmp_path):
    (tmp_path / "a.csv").write_text("id;text;label\n1;a, b;0\n")
    with pytest.raises(DataError, match="separated by ';'"):
        list(read_table(tmp_path / "a.csv"))
    (tmp_path / "a.tsv").write_text("text,label\na,0\n")
    with pytest.raises(DataError, match="separated by ','"):
        list(read_table(tmp_path / "a.tsv"))


@pytest.mark.compatibility("table", "columns without a name at the end (SMS spam's `v1,v2,,,`)", "not read", was=3)
@pytest.mark.compatibility("table", "one pretty-printed JSON object", "refused: expected one a line", was=4)
def test_other_shapes(tmp_path):
    (tmp_path / "a.csv").write_text("v1,v2,,,\nham,Go on,,,\n")
    (row,) = read_table(tmp_path / "a.csv")
    assert (row.cells["v1"], row.cells["v2"]) == ("ham", "Go on")
    (tmp_path / "a.json").write_text('{\n  "text": "a"\n}\n')
    with pytest.raises(DataError, match=r"is one JSON object, of \['text'\]; expected one object per line"):
        list(read_table(tmp_path / "a.json"))
