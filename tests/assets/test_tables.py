"""Rows of CSV, TSV, JSON and parquet, where each of them stands, and what is refused of them."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from jaxsmooth.assets import MalformedRowWarning, read_texts
from jaxsmooth.assets.tables import parse_columns, read_table
from jaxsmooth.errors import DataError, TextError


def cells(path) -> list[dict]:
    return [row.cells for row in read_table(path)]


def parquet(columns: dict) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.compatibility("table", "a quoted CSV cell with commas, quotes or line breaks", "read whole", was=0)
def test_a_quoted_cell_holds_line_breaks_commas_and_quotes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbftext,label\r\n"one,\ntwo ""so""",\n\nNA,1\n')
    rows = list(read_table(tmp_path / "a.csv"))
    assert [row.cells for row in rows] == [{"text": 'one,\ntwo "so"', "label": ""}, {"text": "NA", "label": "1"}]
    assert [row.line for row in rows] == [2, 5]


def test_a_tsv_has_no_quoting(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b'\xef\xbb\xbftext\tlabel\r\n"one\t1\r\n\r\ntwo"\t 2\r\n"so"\t3\n')
    rows = list(read_table(tmp_path / "a.tsv"))
    assert [list(row.cells.values()) for row in rows] == [['"one', "1"], ['two"', " 2"], ['"so"', "3"]]
    assert [row.line for row in rows] == [2, 4, 5]


@pytest.mark.compatibility(
    "table", "a TSV of Excel, which quotes the cells that hold a comma", "refused; the quotes were read", was=1
)
def test_a_tsv_whose_commas_are_quoted(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"a, b"\t0\nc\t1\n')
    with pytest.raises(DataError, match="every cell with a comma is in quotes"):
        cells(path)
    for own in ("d, e\t1\n", '"Yes."\t1\n'):
        path.write_text(f'text\tlabel\n"a, b"\t0\n{own}')
        assert cells(path)[0]["text"] == '"a, b"'


def test_json_lines_keep_types_and_strings_that_look_like_dates(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "2020-01-01", "label": 1}\n\n{"text": "b", "label": "x"}\n')
    rows = list(read_table(tmp_path / "a.jsonl"))
    assert [row.cells for row in rows] == [{"text": "2020-01-01", "label": 1}, {"text": "b", "label": "x"}]
    assert [row.line for row in rows] == [2, 4]


@pytest.mark.compatibility("table", "a .json file: a list of objects, or one object per line", "both are read", was=3)
@pytest.mark.compatibility("table", "a JSON list in a .jsonl file", "read", was=3)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".JSON"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_and_lines_of_json_are_told_apart_by_what_they_hold(suffix, indent, tmp_path):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
    path = tmp_path / f"a{suffix}"
    path.write_text("\n" + json.dumps(rows, indent=indent))
    assert cells(path) == rows
    assert [row.where.removeprefix(str(path)) for row in read_table(path)] == [", row 1", ", row 2"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert cells(path) == rows


@pytest.mark.compatibility("table", "a CSV whose lines end in CR alone", "read", was=0)
def test_lines_of_a_csv_end_in_any_way(tmp_path):
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "a.csv").write_bytes(f'text,label{end}"a{end}b",1{end}{end}c,2{end}'.encode())
        rows = list(read_table(tmp_path / "a.csv"))
        assert [row.cells for row in rows] == [{"text": f"a{end}b", "label": "1"}, {"text": "c", "label": "2"}]
        assert [row.line for row in rows] == [2, 5]


@pytest.mark.compatibility("table", "a suffix in capitals (.CSV)", "read", was=3)
@pytest.mark.compatibility("table", "a CSV cell of more than 131,072 characters", "read", was=3)
def test_a_suffix_in_capitals_and_a_very_long_cell(tmp_path):
    (tmp_path / "a.CSV").write_text("text,label\n" + "a" * 200_000 + ",1\n")
    assert [len(row["text"]) for row in cells(tmp_path / "a.CSV")] == [200_000]


REFUSED = [
    ("a.parquet", b"not parquet at all", "is not a parquet file"),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    ("a.parquet", b"PAR1\x15\x04", "cannot be read: .*copied or downloaded whole"),
    ("a.csv", b'text,label\n"a,b\n', "line 2: not CSV: .*a quote not closed"),
    ("a.csv", b'text,label\na,"b\nc,d\n', "line 2: not CSV"),
    ("a.csv", b'text,label\n"a"b,c\n', "line 2: not CSV"),
    ("a.csv", b"text,label\na,1\n\xff,1\n", r"line 3: byte 15 \(0xff\) is not valid UTF-8"),
    ("a.csv", b"text,label\na,b\nc\n", r"line 3: expected 2 cells, for the columns \['text', 'label'\]; got 1"),
    ("a.csv", b"text,label\na,b,c\n", "line 2: expected 2 cells.*comma inside a text not in quotes"),
    ("a.csv", b'text,label\n"a\nb",c\nd,e,f\n', "line 4: expected 2 cells"),
    ("a.csv", b"text,label,label\na,1,2\n", r"\['label'\] occur twice"),
    ("a.csv", b"text,label\na\0b,1\n", "line 2: byte 12 is NUL"),
    ("a.csv", b"text,label\n", "holds no rows"),
    ("a.csv", b"", "holds no rows"),
    ("a.csv", "text,label\na,b\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    ("a.csv", "text,label\na,b\n".encode("utf-16-be"), "is UTF-16"),
    ("a.csv", b"PK\x03\x04" + 26 * b"\0" + b"[Content_Types].xml", "is an Office document .Excel"),
    ("a.csv", parquet({"text": ["a"]}), "is a parquet table: give it a name that ends in .parquet"),
    ("a.csv", gzip.compress(b"text,label\n", mtime=0), "is compressed with gzip"),
    ("a.csv.gz", gzip.compress(b"text,label\n", mtime=0), "is compressed with gzip: unpack it first, `gunzip FILE`"),
    ("a.xlsx", b"PK\x03\x04" + 26 * b"\0" + b"[Content_Types].xml", "is an Office document .Excel"),
    ("a.tsv", b"text\tlabel\na\tb\tc\n", "line 2: expected 2 cells.*A TSV has no quoting"),
    ("a.tsv", b"text\tlabel\na\tb\n\xff\tc\n", "line 3: byte 15 .* not valid UTF-8"),
    ("a.tsv", b'text\tlabel\n"he said ""so"""\tb\n', "line 2: .* seems to be quoted"),
    ("a.jsonl", b'{"text": "\xff"}\n', "line 1: byte 10 .* not valid UTF-8"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "line 2: not JSON"),
    ("a.jsonl", b'{"text": "a", "text": "b"}\n', "line 1: .*a key occurs twice"),
    ("a.jsonl", b'{\n"text": "a"}\n', "is one JSON object, .*expected one object per line"),
    ("a.jsonl", b'{"a":' * 100_000, "line 1: not JSON: nested too deeply"),
    ("a.json", b'[{"text": "a"},\n {"text": }]\n', "line 2: not JSON"),
    ("a.json", b'[{"text": "a"}, 3]\n', "row 2: expected a JSON object; got int"),
    ("a.txt", b"text\n", "must end in one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet; got '.txt'"),
]


@pytest.mark.compatibility("table", "CSV rows of unequal lengths, a quote left open", "refused with the line", was=0)
@pytest.mark.compatibility("table", "two CSV columns of one name", "refused; the last one was taken", was=1)
@pytest.mark.compatibility(
    "table", "one key twice in a JSON object", "refused with the line; the last one was taken", was=1
)
@pytest.mark.compatibility("table", "Latin-1 bytes in a CSV file", "refused with line and byte", was=4)
@pytest.mark.compatibility("table", "NUL bytes in a table", "refused with line and byte; read as text", was=1)
@pytest.mark.compatibility(
    "table", "a quoted cell in a TSV file", "refused with the line; quotes were read as text", was=1
)
@pytest.mark.compatibility("table", "UTF-16, Excel, gzip, parquet under a table's name", "refused by its name", was=4)
@pytest.mark.compatibility("table", "a pointer of Git LFS in place of a parquet file", "refused by its name", was=4)
@pytest.mark.parametrize(("name", "content", "expected"), REFUSED)
def test_malformed_files_are_refused(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        list(read_table(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.compatibility("table", "a parquet file with a timestamp in nanoseconds beside the text", "read", was=2)
@pytest.mark.compatibility("table", "times and spans of nanoseconds, or of an unknown zone, in parquet", "read", was=3)
def test_columns_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet({"text": ["a"], "when": pyarrow.array([1], pyarrow.timestamp("ns")), "n": [[1]]}))
    assert cells(path) == [{"text": "a", "when": "1970-01-01 00:00:00.000000001", "n": [1]}]
    odd = (pyarrow.duration("ns"), pyarrow.time64("ns"), pyarrow.timestamp("us", "Mars/Olympus"))
    path.write_bytes(parquet({"text": ["a"], **{str(kind): pyarrow.array([1], kind) for kind in odd}}))
    assert cells(path)[0]["text"] == "a"
    path.write_bytes(parquet({"text": ["a"], "when": pyarrow.array([[1]], pyarrow.list_(odd[0]))}))
    assert cells(path) == [{"text": "a", "when": None}]
    twice = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, path)
    with pytest.raises(DataError, match=r"\['text'\] occur twice"):
        cells(path)


@pytest.mark.compatibility("table", "a parquet file that is cut off or damaged", "refused by its name", was=0)
def test_a_damaged_parquet_file(tmp_path):
    whole = parquet({"text": [f"{'a' * 50}{k}" for k in range(5000)]})
    for content in (whole[: len(whole) // 2], whole[:200] + b"\xff" * 64 + whole[264:]):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            list(read_table(tmp_path / "a.parquet"))


WRITERS = {
    ".csv": lambda rows: "".join(f"{','.join(row)}\n" for row in [("id", "review"), *rows]).encode(),
    ".tsv": lambda rows: "".join("\t".join(row) + "\n" for row in [("id", "review"), *rows]).encode(),
    ".jsonl": lambda rows: "".join(json.dumps({"id": a, "review": b}) + "\n" for a, b in rows).encode(),
    ".json": lambda rows: json.dumps([{"id": a, "review": b} for a, b in rows]).encode(),
    ".parquet": lambda rows: parquet({"id": [a for a, _ in rows], "review": [b for _, b in rows]}),
}


@pytest.mark.compatibility(
    "text", "`--data reviews.csv` (tsv, json, parquet): its texts", "the named column is read", was=1
)
@pytest.mark.compatibility("text", "a table without a column `text` as `--data`", "refused, naming its columns", was=1)
@pytest.mark.compatibility("text", "rows of a table without a text as `--data`", "left out and counted", was=1)
@pytest.mark.parametrize("suffix", WRITERS)
def test_the_texts_of_a_table_are_those_of_one_column(suffix, tmp_path):
    path = tmp_path / f"reviews{suffix}"
    path.write_bytes(WRITERS[suffix]([("1", "A fine film."), ("2", "Dull.")]))
    assert read_texts(path, column="review") == ["A fine film.", "Dull."]
    with pytest.raises(
        TextError, match=r"has no column 'text'; its columns are \['id', 'review'\].*--columns text=NAME"
    ):
        read_texts(path)
    path.write_bytes(WRITERS[suffix]([("1", "A fine film."), ("2", " "), ("3", "")]))
    with pytest.warns(MalformedRowWarning, match="skipped 2 rows without a text in review, the first in line [23]"):
        assert read_texts(str(path), column="review") == ["A fine film."]


def test_a_text_that_is_no_string_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": 3}\n')
    with pytest.raises(TextError, match="line 2: text must be a string; got 3"):
        read_texts(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(TextError, match="is no table, so it has no column 'review'"):
        read_texts(tmp_path / "a.txt", column="review")


@pytest.mark.parametrize("text", ["review", "text=", "=review", "text=a,text=b", ","])
def test_columns_that_are_no_mapping(text):
    if text == "text=":  # a column without a name, as pandas writes an index
        assert parse_columns(text) == {"text": ""}
        return
    with pytest.raises(DataError, match="as text=review,label=stars, each role once"):
        parse_columns(text)
