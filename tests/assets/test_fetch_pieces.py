"""An archive in pieces, each in a distribution of its own: joined, checked, resumed, and never half there."""

import dataclasses

import pytest
from support.assets import PIECED_CONTENT, PiecedShop, files_below

from jaxsmooth.assets import clear, fetch
from jaxsmooth.assets.cache import MANIFEST, inspect
from jaxsmooth.errors import AssetError


@pytest.fixture
def parts(cache, tmp_path, monkeypatch) -> PiecedShop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return PiecedShop(folder, monkeypatch)


def test_pieces_are_joined_and_nothing_else_is_left(parts, cache):
    folder = fetch("parts", progress=False)
    assert files_below(folder) == [MANIFEST, "config.json", "weights.bin"]
    assert (folder / "weights.bin").read_bytes() == PIECED_CONTENT
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
    assert (fetch("parts", progress=False) / "weights.bin").read_bytes() == PIECED_CONTENT
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
