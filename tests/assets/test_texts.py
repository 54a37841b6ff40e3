"""Reading sentences: lines, encodings, limits, and the corpora's own format."""

import bz2
import dataclasses
import gzip
import io
import itertools
import json
import lzma
import os
import re
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from support.assets import REAL, REAL_CACHE

from jaxsmooth.assets import (
    REGISTRY,
    MalformedRowWarning,
    count_texts,
    fetch,
    numbered_texts,
    read_rows,
    read_texts,
    stream_texts,
)
from jaxsmooth.assets.cache import MANIFEST, sha256_of
from jaxsmooth.errors import TextError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def file(tmp_path):
    def write(content: bytes) -> Path:
        path = tmp_path / "texts.txt"
        path.write_bytes(content)
        return path

    return write


def test_tiny_sentences_are_shipped_and_varied():
    texts = read_texts("tiny")
    assert len(set(texts)) == 24
    assert all(text == text.strip() and text.isascii() for text in texts)
    assert min(len(text.split()) for text in texts) <= 3
    assert max(len(text.split()) for text in texts) >= 18


def test_lines_are_split_at_newlines_only(file):
    path = file("one\r\n\r\n  \t\ntwo\u2028still\x0btwo\u0085\n lone\rcr \nlast".encode())
    assert read_texts(path) == ["one", "two\u2028still\x0btwo\u0085", " lone\rcr ", "last"]
    assert read_texts(str(path), limit=2) == ["one", "two\u2028still\x0btwo\u0085"]


def test_byte_order_mark_is_dropped_only_at_the_start(file):
    assert read_texts(file("\ufeffone\n\ufefftwo\n".encode())) == ["one", "\ufefftwo"]


def test_invalid_utf8_names_file_line_and_byte(file):
    path = file(b"fine\n\ngr\xfc\xdfe\n")
    with pytest.raises(TextError, match=r"texts\.txt, line 3: byte 8 \(0xfc\)"):
        read_texts(path)


def archive(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as zipped:
        for name in names:
            zipped.writestr(name, "x")
    return written.getvalue()


def tar() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as made:
        made.addfile(tarfile.TarInfo("a.txt"))
    return written.getvalue()


OTHERS = {
    "gzip": (gzip.compress(b"a\n"), "is compressed with gzip: unpack it first, `gunzip FILE`"),
    "bzip2": (bz2.compress(b"a\n"), "is compressed with bzip2"),
    "xz": (lzma.compress(b"a\n"), "is compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with zstd"),
    "zip": (archive("a.txt"), "is a zip archive"),
    "docx": (archive("[Content_Types].xml", "word/document.xml"), "is an Office document"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an Office document of the old kind"),
    "tar": (tar(), "is a tar archive"),
    "pdf": (b"%PDF-1.7\nhello\n", "is a PDF: extract its text first"),
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<p>hello\n", "is an HTML page"),
    "rtf": (b"{\\rtf1 hello}\n", "is rich text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS"),
    "npy": (b"\x93NUMPY\x01\x00v\x00", "is a numpy array"),
    "parquet": (b"PAR1\x15\x04\x15", "is a parquet table"),
    "sqlite": (b"SQLite format 3\0", "is an SQLite database"),
    "utf-16": ("hello\nworld\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "utf-16-le": ("hello\nworld\n".encode("utf-16-le"), "is UTF-16"),
    "utf-16-be": ("hello\nworld\n".encode("utf-16-be"), "is UTF-16"),
    "binary": (b"hello\n\x01\x00\x02world\n", "line 2: byte 7 is NUL"),
}


@pytest.mark.compatibility(
    "text", ".gz, .bz2, .xz, .zip, .tar, .docx, .npy, .parquet as text", "refused by its name", was=4
)
@pytest.mark.compatibility(
    "text", "a PDF, an HTML page, RTF, a pointer of Git LFS as text", "refused by its name; read as sentences", was=1
)
@pytest.mark.compatibility(
    "text", "UTF-16 without a byte-order mark", "refused by its name; read with NUL bytes", was=1
)
@pytest.mark.compatibility("text", "UTF-16 with a byte-order mark", "refused by its name", was=4)
@pytest.mark.compatibility(
    "text", "NUL bytes in the middle of a text (a damaged file)", "refused with line and byte", was=1
)
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_text_is_named(name, file):
    content, expected = OTHERS[name]
    with pytest.raises(TextError, match=re.escape(expected)):
        read_texts(file(content))


def test_what_only_looks_like_another_format_is_read(file):
    for text in ("BZh is a word", "PARIS", "PK", "%PDF", "<p>one", "version 2", "7z", "日本語" * 400, "{rtf}"):
        assert read_texts(file(text.encode())) == [text]


@pytest.mark.compatibility("text", "a folder as `--data`", "refused, naming what it is", was=4)
@pytest.mark.skipif(os.name == "nt", reason="has no /dev/stdin")
def test_a_pipe_is_read_as_a_file_is(tmp_path, monkeypatch):
    read, write = os.pipe()
    os.write(write, b"one\ntwo\n")
    os.close(write)
    assert read_texts(f"/dev/fd/{read}") == ["one", "two"]
    os.close(read)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(TextError, match=r"a\.csv is a folder; expected a file"):
        read_texts(tmp_path / "a.csv")


def standard_input(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))


@pytest.mark.compatibility("text", "`-` as `--data`", "standard input, one sentence a line", was=4)
def test_standard_input(tmp_path, monkeypatch):
    standard_input(monkeypatch, b"one\r\n\ntwo")
    assert count_texts("-") is None  # reads nothing
    assert read_texts("-") == ["one", "two"]
    standard_input(monkeypatch, b"one\n\xff")
    with pytest.raises(TextError, match="standard input, line 2: byte 4"):
        read_texts("-")
    standard_input(monkeypatch, b'{"text": "one"}\n')
    with pytest.raises(TextError, match="standard input is JSON"):
        read_texts("-")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("a file\n")
    assert read_texts(Path("-")) == ["a file"]


@pytest.mark.compatibility("text", "a sentence in quotes as `--data`", "taken as it is", was=4)
def test_a_sentence_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for sentence in ("A film worth seeing.", "It cost 3.50", "two words", "Wait... what?"):
        assert read_texts(sentence) == [sentence]
        assert count_texts(sentence) == 1
    for missing in ("my opinions.txt", "/my files", "my/two files", "my\\two files", "~me/two files", "opinions"):
        with pytest.raises(TextError, match=r"there is no file .* A sentence in quotes is taken as it is if"):
            read_texts(missing)
    (tmp_path / "two words").write_text("a file\n")
    assert read_texts("two words") == ["a file"]


def test_a_name_that_is_nearly_right_is_asked_after():
    with pytest.raises(TextError, match=r"no text of that name; .* Did you mean 'movie-reviews'\?"):
        read_texts("movie-review")
    with pytest.raises(TextError, match=r"there is no text asset 'tweet'; .* Did you mean 'tweets'\?"):
        read_rows("tweet")


@pytest.mark.compatibility("text", "`gs://`, `s3://`, `https://` as `--data`", "refused: an address", was=2)
def test_an_address_is_called_one():
    for address in ("gs://bucket/reviews.txt", "s3://bucket/a.csv", "https://example.org/a.jsonl", "hdfs://x/y z"):
        with pytest.raises(TextError, match=f"^{address} is an address; expected a path on this machine"):
            read_texts(address)
        with pytest.raises(TextError, match=f"^{address} is an address"):  # of two slashes a Path makes one
            read_texts(Path(address))


def test_sentences_are_counted_as_they_are_read(file, monkeypatch):
    path = file(b"one\n\n  \ntwo\nthree\n")
    assert [count_texts(path), count_texts(path, 2), count_texts(path, 7)] == [3, 2, 3]
    monkeypatch.setattr("jaxsmooth.assets.texts.COUNTED", 8)
    assert [count_texts(path), count_texts(path, 2)] == [None, 2]


def test_each_sentence_knows_its_line(file):
    assert list(numbered_texts(file(b"\n\none\n \ntwo"))) == [(3, "one"), (5, "two")]


def test_reading_stops_at_the_limit(file):
    assert read_texts(file(b"one\n\xff\n"), limit=1) == ["one"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \r\n\t\n", "\ufeff".encode()])
def test_file_without_text(file, content):
    with pytest.raises(TextError, match="holds no text"):
        read_texts(file(content))


@pytest.mark.parametrize("limit", [0, -1, True])
def test_bad_limit(limit):
    with pytest.raises(TextError, match="at least 1"):
        read_texts("tiny", limit=limit)


def test_missing_file_lists_the_texts(tmp_path):
    with pytest.raises(TextError, match="tiny, movie-reviews, amazon-reviews"):
        read_texts("movie-review")
    with pytest.raises(TextError, match="is a folder; expected a file"):
        read_texts(tmp_path)


def test_model_is_not_a_text():
    with pytest.raises(TextError, match="is a model, not a text"):
        read_texts("minilm-l6")


def test_path_wins_where_a_file_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("local\n")
    assert read_texts(Path("./tiny").absolute()) == ["local"]
    assert read_texts("./tiny") == ["local"]
    assert len(read_texts("tiny")) == 24


def test_malformed_rows_are_skipped_and_counted(shop):
    path = fetch("one", progress=False) / "one.txt"
    rows = [b"1\t0.5\tkept\ttab", b"no tabs", b"3\thigh\tno score", b"4\tnan\tno score", b"5\t1\t ", b"6\t-2\tkept"]
    content = b"\n".join(rows)
    path.write_bytes(content)
    # So that the folder passes for whole.
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"]["one.txt"] = {"size": len(content), "sha256": sha256_of(path)}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))
    with pytest.warns(MalformedRowWarning, match="skipped 4 rows"):
        assert read_texts("one") == ["kept\ttab", "kept"]


def test_topics_and_header_are_left_out(shop, monkeypatch):
    rows = b"Topic\tText\nd\tstring\nclass\t\n\t\nearn\tshares rose\n\ntrade\tfar\taway\nno tab\nacq\t \n"
    with zipfile.ZipFile(shop.file, "w") as zipped:
        zipped.writestr("fake-1.0/data/one.tab", rows)
    shop.register(sha256_of(shop.file))
    changes = {"rows": "topic text", "inner": "", "folder": "fake-1.0/data", "files": ("one.tab",)}
    monkeypatch.setitem(REGISTRY, "one", dataclasses.replace(REGISTRY["one"], **changes))
    monkeypatch.delitem(REGISTRY, "two")
    with pytest.warns(MalformedRowWarning, match="skipped 2 rows that are not `topic TAB text`"):
        assert read_texts("one") == ["shares rose", "far\taway"]


CORPORA = {
    "movie-reviews": 10605,
    "amazon-reviews": 3708,
    "tweets": 4200,
    "nyt-editorials": 5190,
    "reuters-r8": 5485,
    "reuters-r52": 6532,
    "newsgroups": 11293,
}


@pytest.mark.parametrize("name", CORPORA)
def test_corpus_sizes(name, monkeypatch):
    if not REAL[name]:
        pytest.skip(f"needs {name} in the cache: jaxsmooth assets fetch {name}")
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
    assert len(read_texts(name)) == CORPORA[name]


def test_rows_of_a_text_with_all_their_columns(shop):
    assert read_rows("one") == [("1", "2.5", "A fine film."), ("2", "-1", "Dull.")]
    with pytest.raises(TextError, match=r"one has 1 part\(s\); got part 1"):
        read_rows("one", 1)
    with pytest.raises(TextError, match="no text asset 'minilm-l6'; the names are movie-reviews"):
        read_rows("minilm-l6")


def test_task_is_not_a_text():
    with pytest.raises(TextError, match="squad-dev is a task, not a text"):
        read_texts("squad-dev")


def test_a_stream_reads_no_further_than_it_is_asked(file):
    """Of a file too long to hold, one block of the file is in memory at a time."""
    path = file(b"first sentence\n" * 100_000 + b"\xff\n")
    stream = stream_texts(path)
    tracemalloc.start()
    counted = sum(1 for _ in itertools.islice(stream, 100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted == 100_000
    assert peak < 2**20 < path.stat().st_size
    with pytest.raises(TextError, match="line 100001"):
        next(stream)


@pytest.mark.parametrize(("source", "limit"), [("movie-review", None), ("minilm-l6", None), ("tiny", 0)])
def test_a_stream_refuses_at_once(source, limit):
    with pytest.raises(TextError):
        stream_texts(source, limit)
