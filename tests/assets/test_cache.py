"""The cache: where it is, what is verified when, what is removed; without the network."""

import json
import os
from pathlib import Path

import pytest
from support.assets import REAL, REAL_CACHE, ROWS, files_below

from jaxsmooth.assets import REGISTRY, asset_path, assets_table, cache_dir, clear, fetch, verify
from jaxsmooth.assets.cache import MANIFEST, inspect, sha256_of
from jaxsmooth.errors import AssetError

pytestmark = pytest.mark.usefixtures("cache")


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


def test_manifest_holds_sizes_and_hashes(shop):
    folder = fetch("one", progress=False)
    entry = json.loads((folder / MANIFEST).read_text())["files"]["one.txt"]
    assert entry == {"size": len(ROWS), "sha256": sha256_of(folder / "one.txt")}


def test_the_table_shows_what_is_cached(shop):
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


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "no manifest", "bad manifest", "odd manifest"])
def test_damaged_folder_is_noticed_and_fetched_again(shop, damage):
    folder = fetch("one", progress=False)
    target = folder / ("one.txt" if damage in ("changed", "shorter", "missing") else MANIFEST)
    if damage in ("missing", "no manifest"):
        target.unlink()
    else:
        target.write_text(
            {"changed": "x" * len(ROWS), "shorter": "x", "bad manifest": "{", "odd manifest": "[1]"}[damage]
        )
    with pytest.raises(AssetError, match=r"is damaged: .*jaxsmooth assets clear one.*jaxsmooth assets fetch one"):
        asset_path("one")
    assert (fetch("one", progress=False) / "one.txt").read_bytes() == ROWS.encode()
    assert len(shop.runs()) == 2


def test_an_untouched_file_is_hashed_once(shop, monkeypatch):
    folder = fetch("one", progress=False)
    hashed = []
    monkeypatch.setattr("jaxsmooth.assets.cache.sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    asset_path("one")
    asset_path("one")
    assert hashed == []
    (folder / "one.txt").touch()
    asset_path("one")
    asset_path("one")
    assert hashed == ["one.txt"]
    assert verify("one") == (("one", "cached", ""),)
    assert hashed == ["one.txt", "one.txt"]


@pytest.mark.parametrize("record", ["{", "[1]", '{"one.txt": "x"}'])
def test_a_spoilt_record_of_hashes_means_hashing_again(shop, cache, record):
    folder = fetch("one", progress=False)
    (cache / "verified" / "one.json").write_text(record)
    assert asset_path("one") == folder
    assert json.loads((cache / "verified" / "one.json").read_text()).keys() == {"one.txt"}


def test_verify_reads_every_file_whatever_was_recorded(shop, cache):
    assert verify() == ()
    folder = fetch("one", progress=False)
    status = (folder / "one.txt").stat()
    (folder / "one.txt").write_bytes(b"x" * status.st_size)
    # Whoever restores the times too cannot restore the time of change; a record that says otherwise is not believed.
    os.utime(folder / "one.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    (name, state, why), *others = verify("one")
    assert (name, state, others) == ("one", "damaged", [])
    assert "one.txt must have sha256" in why
    with pytest.raises(AssetError, match="there is no asset 'three'"):
        verify("three")


def test_a_folder_of_another_release_is_damaged(shop):
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


@pytest.mark.skipif(not REAL["minilm-l6"], reason="needs minilm-l6 in the cache: jaxsmooth assets fetch minilm-l6")
def test_cached_files_have_the_hashes_of_the_manifest(monkeypatch):
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
    folder = asset_path("minilm-l6")
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"} <= set(files)
    for name, entry in files.items():
        assert sha256_of(folder / name) == entry["sha256"]
