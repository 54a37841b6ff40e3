"""Rows of TSV, CSV, JSON lines and parquet, and what is refused of them."""

import pytest

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.table_files import read_rows


def test_a_quoted_cell_holds_line_breaks_commas_and_quotes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"one,\ntwo ""so""",\n\nNA,1\n')
    assert list(read_rows(tmp_path / "a.csv")) == [
        {"text": 'one,\ntwo "so"', "label": ""},
        {"text": "NA", "label": "1"},
    ]


def test_a_tsv_has_no_quoting(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b'\xef\xbb\xbftext\tlabel\r\n"one\t1\r\n\r\ntwo"\t 2\r\n')
    assert list(read_rows(tmp_path / "a.tsv")) == [{"text": '"one', "label": "1"}, {"text": 'two"', "label": " 2"}]


def test_json_lines_keep_types_and_strings_that_look_like_dates(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "2020-01-01", "label": 1}\n\n{"text": "b", "label": "x"}\n')
    assert list(read_rows(tmp_path / "a.jsonl")) == [{"text": "2020-01-01", "label": 1}, {"text": "b", "label": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.parquet", b"not parquet at all", "is not a parquet file"),
        ("a.csv", b'text,label\n"a,b\n', "is not a CSV file"),
        ("a.csv", b'text,label\na,"b\nc,d\n', "is not a CSV file"),
        ("a.csv", b'text,label\n"a"b,c\n', "is not a CSV file"),
        ("a.csv", b"text,label\n\xff,1\n", "is not a CSV file in UTF-8"),
        ("a.csv", b"text,label\na,b\nc\n", r"line 3: expected the columns \['text', 'label'\]"),
        ("a.csv", b"text,label\na,b,c\n", "line 2: expected the columns"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.tsv", b"text\tlabel\na\tb\tc\n", "line 2: expected 2 columns"),
        ("a.tsv", b"text\tlabel\na\tb\n\xff\tc\n", "line 3: not UTF-8"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1: not JSON in UTF-8"),
        ("a.txt", b"text\n", "must end in one of .tsv, .csv, .jsonl, .parquet; got '.txt'"),
    ],
)
def test_malformed_files_are_refused(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        list(read_rows(tmp_path / name))
