"""Fetching, unpacking and reading assets, without the network: pip is played by a script that copies a file."""

import dataclasses
import importlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from jaxsmooth.assets import (
    REGISTRY,
    Asset,
    Distribution,
    MalformedRowWarning,
    asset_path,
    assets_table,
    cache_dir,
    clear,
    fetch,
    read_texts,
)
from jaxsmooth.assets.archives import extract
from jaxsmooth.assets.cache import MANIFEST, asset_folder, inspect, sha256_of
from jaxsmooth.errors import AssetError, TextError

# By name: `jaxsmooth.assets.fetch` is also the function.
FETCH_MODULE = importlib.import_module("jaxsmooth.assets.fetch")

# Writes its process id at once and a line per run at the end; `delay` is how slow the network is.
FAKE_PIP = """
import os, pathlib, shutil, sys, time
folder = pathlib.Path({folder!r})
(folder / "pip.pid").write_text(str(os.getpid()))
target = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
time.sleep({delay})
target.mkdir(parents=True)
shutil.copy({distribution!r}, target)
with (folder / "runs").open("a") as log:
    print(*sys.argv[1:], file=log)
"""
# A separate process that fetches with the same fake pip and the same registry.
WORKER = """
import importlib, sys
from jaxsmooth.assets import REGISTRY, Asset, Distribution
pip, name, texts, distribution = eval(sys.argv[1])
module = importlib.import_module("jaxsmooth.assets.fetch")
module.PIP = (sys.executable, pip)
for text in texts:
    REGISTRY[text["name"]] = Asset(**(text | {"distribution": Distribution(**distribution)}))
print(module.fetch(name, progress=False))
"""
ROWS = "1\t2.5\tA fine film.\r\n2\t-1\tDull.\r\n"


class Shop:
    """A tiny distribution with two texts in an inner archive, registered, and a pip that "downloads" it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.file = folder / "fake-1.0.zip"
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w:gz") as tarred:
            for name in ("one.txt", "two.txt"):
                add_to_tar(tarred, f"data/{name}", ROWS.encode())
        with zipfile.ZipFile(self.file, "w") as zipped:
            zipped.writestr("fake-1.0/setup.py", "raise SystemExit('never run')")
            zipped.writestr("fake-1.0/inner.tar.gz", inner.getvalue())
        self.register(sha256_of(self.file))
        self.use_pip()

    def register(self, sha256: str) -> None:
        self.distribution = Distribution("fake", "1.0", self.file.name, sha256, self.file.stat().st_size)
        for name in ("one", "two"):
            self.monkeypatch.setitem(REGISTRY, name, fake_asset(name, self.distribution))

    def use_pip(self, delay: float = 0.0) -> None:
        text = FAKE_PIP.format(folder=str(self.folder), delay=delay, distribution=str(self.file))
        self.use_script(text)

    def use_script(self, text: str) -> None:
        (self.folder / "pip.py").write_text(text)
        self.monkeypatch.setattr(FETCH_MODULE, "PIP", (sys.executable, str(self.folder / "pip.py")))

    def runs(self) -> list[str]:
        log = self.folder / "runs"
        return log.read_text().splitlines() if log.exists() else []

    def start_worker(self, name: str) -> subprocess.Popen:
        texts = [dataclasses.asdict(REGISTRY[name]) for name in ("one", "two")]
        argument = repr((str(self.folder / "pip.py"), name, texts, dataclasses.asdict(self.distribution)))
        command = [sys.executable, "-c", WORKER, argument]
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_pip(self) -> int:
        for _ in range(300):
            if (self.folder / "pip.pid").exists() and (text := (self.folder / "pip.pid").read_text()):
                return int(text)
            time.sleep(0.05)
        raise AssertionError("the fake pip never started")


def fake_asset(name: str, distribution: Distribution) -> Asset:
    return Asset(
        name=name,
        kind="text",
        distribution=distribution,
        inner="fake-1.0/inner.tar.gz",
        folder="data",
        files=(f"{name}.txt",),
        licence="MIT",
        author="nobody",
        description="two sentences",
    )


def add_to_tar(tarred: tarfile.TarFile, name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/hostname" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    tarred.addfile(info, io.BytesIO(content))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSMOOTH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, monkeypatch)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed orphan may stay a zombie where nothing reaps it.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


# The registry


def test_registry_rows_are_consistent():
    for name, asset in REGISTRY.items():
        assert asset.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", asset.distribution.sha256)
        assert asset.distribution.filename.lower().startswith(asset.distribution.package.lower().replace("-", "_"))
        assert asset.licence
        assert asset.author
    assert {"minilm-l6", "movie-reviews", "amazon-reviews", "tweets", "nyt-editorials"} <= set(REGISTRY)


def test_unknown_name_lists_the_names():
    for call in (fetch, asset_path, clear):
        with pytest.raises(AssetError, match=r"'nonsense'.*minilm-l6, movie-reviews"):
            call("nonsense")


# The cache folder


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("JAXSMOOTH_CACHE", "~/elsewhere")
    assert cache_dir() == Path.home() / "elsewhere"
    monkeypatch.setenv("JAXSMOOTH_CACHE", "")
    assert cache_dir().name == "jaxsmooth"


def test_cache_that_cannot_be_written(shop, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(AssetError, match="JAXSMOOTH_CACHE to a writable folder"):
        fetch("one", progress=False)


# Fetching


def test_fetch_downloads_once_for_all_assets_of_a_distribution(shop, cache):
    folder = fetch("one", progress=False)
    assert folder == cache / "assets" / "one" == asset_path("one")
    assert (folder / "one.txt").read_bytes() == ROWS.encode()
    assert files_below(folder) == [MANIFEST, "one.txt"]
    assert read_texts("two") == ["A fine film.", "Dull."]
    assert fetch("one", progress=False) == folder
    assert len(shop.runs()) == 1
    assert files_below(cache / "staging") == []


def test_pip_is_told_the_hash_and_no_dependencies(shop):
    fetch("one", progress=False)
    (run,) = shop.runs()
    assert run.startswith("download --no-deps")
    assert "--require-hashes" in run


def test_manifest_holds_sizes_and_hashes(shop):
    folder = fetch("one", progress=False)
    entry = json.loads((folder / MANIFEST).read_text())["files"]["one.txt"]
    assert entry == {"size": len(ROWS), "sha256": sha256_of(folder / "one.txt")}


def test_progress_is_shown_on_stderr_only_when_wanted(shop, capsys):
    fetch("one", progress=False)
    assert capsys.readouterr() == ("", "")
    clear("one")
    fetch("one")
    out, err = capsys.readouterr()
    assert out == ""
    assert "fetching fake==1.0" in err


def test_table_tells_what_is_cached(shop):
    def state():
        return {asset.name: state for asset, state in assets_table()}["one"]

    assert state() == "absent"
    folder = fetch("one", progress=False)
    assert state() == "cached"
    (folder / "one.txt").write_bytes(b"")
    assert state() == "damaged"


def test_absent_asset_says_how_to_fetch(shop):
    with pytest.raises(AssetError, match="jaxsmooth assets fetch one"):
        asset_path("one")


@pytest.mark.parametrize("damage", ["shorter", "missing", "no manifest", "bad manifest", "odd manifest"])
def test_damaged_folder_is_noticed_and_fetched_again(shop, damage):
    folder = fetch("one", progress=False)
    target = folder / ("one.txt" if damage in ("shorter", "missing") else MANIFEST)
    if damage in ("missing", "no manifest"):
        target.unlink()
    else:
        target.write_text({"shorter": "x", "bad manifest": "{", "odd manifest": "[1]"}[damage])
    with pytest.raises(AssetError, match=r"is damaged: .*jaxsmooth assets clear one.*jaxsmooth assets fetch one"):
        asset_path("one")
    assert (fetch("one", progress=False) / "one.txt").read_bytes() == ROWS.encode()
    assert len(shop.runs()) == 2


def test_folder_of_another_release_is_not_trusted(shop):
    fetch("one", progress=False)
    shop.register("0" * 64)
    with pytest.raises(AssetError, match="another release"):
        asset_path("one")


def test_clear_removes_only_what_it_owns(shop, cache):
    fetch("one", progress=False)
    (cache / "precious").write_text("mine")
    assert clear("one") == ("one",)
    assert clear("one") == ()
    assert inspect(REGISTRY["two"])[0] == "cached"
    assert clear() == ("two",)
    assert [name for name in files_below(cache) if not name.startswith("locks/")] == ["precious"]


def test_clear_of_an_empty_cache_creates_nothing(cache):
    assert clear() == ()
    assert not cache.exists()


# Fetching that goes wrong


def test_wrong_hash_keeps_nothing(shop, cache):
    shop.register("0" * 64)
    with pytest.raises(AssetError, match=rf"must have sha256 {'0' * 64}; got {sha256_of(shop.file)}"):
        fetch("one", progress=False)
    assert not asset_folder(REGISTRY["one"]).exists()
    assert files_below(cache / "staging") == []


def test_another_file_than_pinned(shop):
    shop.file = shop.file.rename(shop.folder / "other.zip")
    shop.use_pip()
    with pytest.raises(AssetError, match=r"saved fake-1.0.zip; got \['other.zip'\]"):
        fetch("one", progress=False)


def test_offline_error_quotes_pip_and_says_what_to_do(shop):
    shop.use_script("raise SystemExit('ERROR: No matching distribution found for fake==1.0')")
    with pytest.raises(AssetError, match="No matching distribution") as caught:
        fetch("one", progress=False)
    for advice in ("connect this machine", "JAXSMOOTH_CACHE", "`tiny`"):
        assert advice in str(caught.value)


def test_warnings_of_a_pip_that_succeeds_do_not_matter(shop):
    text = (shop.folder / "pip.py").read_text()
    shop.use_script(text + "\nprint(\"WARNING: Location 'file:///x' is ignored\", file=sys.stderr)")
    assert fetch("one", progress=False).is_dir()


def test_hash_mismatch_found_by_pip_is_called_that(shop):
    shop.use_script("raise SystemExit('ERROR: THESE PACKAGES DO NOT MATCH THE HASHES')")
    with pytest.raises(AssetError, match="pip got another file") as caught:
        fetch("one", progress=False)
    assert "connect this machine" not in str(caught.value)


def test_interpreter_without_pip(shop, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    python = next(path for folder in ("bin", "Scripts") for path in (tmp_path / "bare" / folder).glob("python*"))
    monkeypatch.setattr(FETCH_MODULE, "PIP", (str(python), "-m", "pip"))
    with pytest.raises(AssetError, match="ensurepip"):
        fetch("one", progress=False)


def test_real_pip_checks_the_hash_before_it_runs_the_package(shop, monkeypatch):
    # The fake distribution's setup.py fails if it is run: pip must stop at the hash, before that.
    monkeypatch.setattr(FETCH_MODULE, "PIP", (sys.executable, "-m", "pip"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop.folder))
    shop.register("0" * 64)
    with pytest.raises(AssetError, match="pip got another file") as caught:
        fetch("one", progress=False)
    assert "never run" not in str(caught.value)


def test_pip_that_cannot_be_started(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(FETCH_MODULE, "PIP", (str(tmp_path / "no-such-python"), "-m", "pip"))
    with pytest.raises(AssetError, match="could not start"):
        fetch("one", progress=False)


@pytest.mark.skipif(os.name == "nt", reason="sends Unix signals")
def test_interrupt_kills_pip_and_leaves_nothing(shop, cache):
    shop.use_pip(delay=60)
    worker = shop.start_worker("one")
    pip = shop.wait_for_pip()
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=20)
    assert "KeyboardInterrupt" in err
    assert not is_running(pip)
    assert [name for name in files_below(cache) if not name.startswith("locks/")] == []


@pytest.mark.skipif(os.name == "nt", reason="sends Unix signals")
def test_killed_fetch_is_cleaned_up_by_the_next(shop, cache):
    shop.use_pip(delay=60)
    worker = shop.start_worker("one")
    pip = shop.wait_for_pip()
    worker.kill()
    worker.communicate(timeout=20)
    os.kill(pip, signal.SIGKILL)
    assert inspect(REGISTRY["one"])[0] == "absent"
    assert files_below(cache / "staging") != []
    shop.use_pip()
    fetch("one", progress=False)
    assert files_below(cache / "staging") == []


def test_failure_while_unpacking_leaves_nothing(shop, cache, monkeypatch):
    broken = dataclasses.replace(REGISTRY["one"], files=("one.txt", "absent.txt"))
    monkeypatch.setitem(REGISTRY, "one", broken)
    with pytest.raises(AssetError, match=r"has no data/absent\.txt"):
        fetch("one", progress=False)
    assert [name for name in files_below(cache) if not name.startswith("locks/")] == []


def test_two_processes_download_once(shop, cache):
    shop.use_pip(delay=1)
    workers = [shop.start_worker(name) for name in ("one", "two")]
    for worker, name in zip(workers, ("one", "two"), strict=True):
        out, err = worker.communicate(timeout=30)
        assert worker.returncode == 0, err
        assert out.strip() == str(cache / "assets" / name)
    assert len(shop.runs()) == 1


# Archives


def make_archive(folder: Path, kind: str, members: list[tuple[str, bytes]]) -> Path:
    path = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in members:
                zipped.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as tarred:
            for name, content in members:
                add_to_tar(tarred, name, content)
    return path


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_extract_takes_the_folder_and_nothing_else(tmp_path, into, kind):
    members = [("m/a.txt", b"1"), ("m/deep/b.txt", b"2"), ("m/c.bin", b"3"), ("mm/a.txt", b"4"), ("a.txt", b"5")]
    archive = make_archive(tmp_path, kind, members)
    extract(archive, "m", ("*.txt",), into)
    assert files_below(into) == ["a.txt", "deep/b.txt"]
    assert (into / "deep" / "b.txt").read_bytes() == b"2"


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["m/../../evil", "../evil", "/evil", "m/..", "m\\..\\evil", "C:/evil"])
def test_extract_refuses_escaping_names(tmp_path, into, kind, name):
    archive = make_archive(tmp_path, kind, [("m/good", b"1"), (name, b"2")])
    with pytest.raises(AssetError, match="reaches outside"):
        extract(archive, "m", ("*",), into)
    assert files_below(into) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_extract_refuses_links_and_devices_in_tar(tmp_path, into, kind):
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tarred:
        add_to_tar(tarred, "m/odd", kind=kind)
    with pytest.raises(AssetError, match="plain file"):
        extract(archive, "m", ("*",), into)
    assert list(into.iterdir()) == []


def test_extract_refuses_links_in_zip(tmp_path, into):
    archive = tmp_path / "archive.zip"
    info = zipfile.ZipInfo("m/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(info, "/etc/hostname")
    with pytest.raises(AssetError, match="plain file"):
        extract(archive, "m", ("*",), into)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_extract_stops_a_bomb(tmp_path, into, kind):
    archive = make_archive(tmp_path, kind, [("m/a", bytes(3000)), ("m/b", bytes(3000))])
    extract(archive, "m", ("a",), into, limit=3000)
    with pytest.raises(AssetError, match="more than the limit"):
        extract(archive, "m", ("b",), into, limit=2999)
    (into / "a").unlink()
    (into / "b").unlink()
    with pytest.raises(AssetError, match="more than the limit"):
        extract(archive, "m", ("*",), into, limit=5999)


def test_extract_refuses_a_name_twice(tmp_path, into):
    archive = make_archive(tmp_path, "tar.gz", [("m/a", b"1"), ("m/./a", b"2")])
    with pytest.raises(AssetError, match="twice"):
        extract(archive, "m", ("*",), into)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_extract_refuses_every_truncation(tmp_path, into, kind):
    archive = make_archive(tmp_path, kind, [("m/a", os.urandom(2000)), ("m/b", os.urandom(2000))])
    whole = archive.read_bytes()
    for number, size in enumerate(range(0, len(whole) - 20, 97)):
        archive.write_bytes(whole[:size])
        target = into / str(number)
        target.mkdir()
        with pytest.raises(AssetError):
            extract(archive, "m", ("*",), target)


# Reading texts


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
    # Same size in the manifest, so that the folder passes for whole.
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"]["one.txt"]["size"] = len(content)
    (path.parent / MANIFEST).write_text(json.dumps(manifest))
    path.write_bytes(content)
    with pytest.warns(MalformedRowWarning, match="skipped 4 rows"):
        assert read_texts("one") == ["kept\ttab", "kept"]


# Real files, where the user's own cache has them (this module's `cache` fixture points elsewhere).

REAL = {name: inspect(asset)[0] == "cached" for name, asset in REGISTRY.items()}
REAL_CACHE = str(cache_dir())
CORPORA = {"movie-reviews": 10605, "amazon-reviews": 3708, "tweets": 4200, "nyt-editorials": 5190}


@pytest.mark.parametrize("name", CORPORA)
def test_corpus_sizes(name, monkeypatch):
    if not REAL[name]:
        pytest.skip(f"needs {name} in the cache: jaxsmooth assets fetch {name}")
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
    assert len(read_texts(name)) == CORPORA[name]


@pytest.mark.skipif(not REAL["minilm-l6"], reason="needs minilm-l6 in the cache: jaxsmooth assets fetch minilm-l6")
def test_cached_files_have_the_hashes_of_the_manifest(monkeypatch):
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
    folder = asset_path("minilm-l6")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"} <= set(files)
    for name, entry in files.items():
        assert sha256_of(folder / name) == entry["sha256"]
