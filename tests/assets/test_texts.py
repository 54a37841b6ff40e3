"""Reading sentences: lines, encodings, limits, and the corpora's own format."""

import dataclasses
import itertools
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from support.assets import REAL, REAL_CACHE

from jaxsmooth.assets import REGISTRY, MalformedRowWarning, fetch, read_rows, read_texts, stream_texts
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
    with pytest.raises(TextError, match="cannot be read"):
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
    path = file(b"first sentence\n" * 200_000 + b"\xff\n")
    stream = stream_texts(path)
    tracemalloc.start()
    counted = sum(1 for _ in itertools.islice(stream, 200_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted == 200_000
    assert peak < 2**20 < path.stat().st_size
    with pytest.raises(TextError, match="line 200001"):
        next(stream)


@pytest.mark.parametrize(("source", "limit"), [("movie-review", None), ("minilm-l6", None), ("tiny", 0)])
def test_a_stream_refuses_at_once(source, limit):
    with pytest.raises(TextError):
        stream_texts(source, limit)
