"""Atomic writes, checks of folders, strict JSON."""

import contextlib
import errno
import json
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth.errors import StorageError
from jaxsmooth.files import (
    atomic_write,
    check_writable,
    dumps_strict,
    replaced_together,
    require_room,
    storage_fault,
    strict,
)


def fail(*_):
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("line\nd‖H‖\n", "line\nd‖H‖\n".encode()),
        (b"\x00\xff\r\n", b"\x00\xff\r\n"),
        (lambda path: path.write_bytes(b"by function"), b"by function"),
    ],
    ids=["text", "bytes", "function"],
)
def test_the_content_arrives_and_nothing_else(tmp_path, content, expected):
    path = tmp_path / "new" / "folder" / "file.json"
    for _ in range(2):  # the second write replaces the first
        assert atomic_write(path, content) == path
        assert path.read_bytes() == expected
        assert [each.name for each in path.parent.iterdir()] == ["file.json"]
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_function_gets_a_path_beside_the_file_with_its_suffix(tmp_path):
    seen = []
    atomic_write(tmp_path / "a.safetensors", lambda path: (seen.append(path), path.touch()))
    assert [(path.parent, path.suffix) for path in seen] == [(tmp_path, ".safetensors")]


@pytest.mark.parametrize("content", ["new", fail], ids=["at the rename", "in the function"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, content):
    path = atomic_write(tmp_path / "file", "old")
    if content == "new":
        monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, content)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def save_together(folder):
    with replaced_together(folder, "a.txt") as new:
        (new / "a.txt").write_text("text")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_writable(tmp_path / "file" / "folder")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="no permission"):
        check_writable(tmp_path / "new")


@pytest.mark.compatibility("saving", "`gs://`, `s3://` as `--out`", "refused: an address", was=2)
@pytest.mark.parametrize("write", [atomic_write, check_writable, save_together], ids=["file", "check", "folder"])
def test_an_address_becomes_no_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("gs://bucket/out", Path("gs://bucket/out"), "s3://bucket/out", "memory://out", "file:///out"):
        with pytest.raises(StorageError, match=r"://\S*out is an address; expected a path on this machine"):
            write(address, "text") if write is atomic_write else write(address)
    assert list(tmp_path.iterdir()) == []


def test_nan_and_infinity_become_null():
    tree = {"a": np.float64("nan"), "b": [float("inf"), (-float("inf"), 1.5)], 3: {"c": None, "d": True}}
    expected = {"a": None, "b": [None, [None, 1.5]], "3": {"c": None, "d": True}}
    assert strict(tree) == expected
    assert json.loads(dumps_strict(tree), parse_constant=pytest.fail) == expected
    assert json.loads(dumps_strict(tree, indent=2), parse_constant=pytest.fail) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_to_the_last_bit(value):
    assert json.loads(dumps_strict([value])) == [value]


@contextlib.contextmanager
def small_files(limit):
    """No file may grow beyond this: what a full disk or a quota does to a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.compatibility(
    "long", "a disk that is full when a report or an export is written", "one line: file, disk, wanted, free", was=4
)
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("x" * 9000, "0.009 MB wanted, "),
        (b"x" * 9000, "0.009 MB wanted, "),
        (lambda path: safetensors.numpy.save_file({"a": np.zeros(9000)}, path), ""),
    ],
    ids=["text", "bytes", "a library's own exception"],
)
def test_a_disk_that_fills_is_named_and_the_old_file_stays(tmp_path, content, wanted):
    (tmp_path / "a.bin").write_text("old")
    with small_files(1000), pytest.raises(StorageError) as caught:
        atomic_write(tmp_path / "a.bin", content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.bin'} could not be written: the file is larger than is allowed there")
    assert "The disk is that of /" in message
    assert wanted in message
    assert message.endswith(" MB free.")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_text() == "old"


@pytest.mark.compatibility(
    "long", "a disk that is full when a model is saved", "one line, the former model stays", was=4
)
@pytest.mark.parametrize(
    "content",
    [
        lambda folder: (folder / "a.bin").write_bytes(b"x" * 9000),
        lambda folder: safetensors.numpy.save_file({"a": np.zeros(9000)}, folder / "a.bin"),
        lambda folder: atomic_write(folder / "a.bin", b"x" * 9000),
        lambda folder: _together(folder / "inner", b"x" * 9000),
    ],
    ids=["bytes", "a library's own exception", "a file of its own", "files of their own"],
)
def test_a_disk_that_fills_is_named_and_the_old_files_stay(tmp_path, content):
    _together(tmp_path, b"old")
    with small_files(1000), pytest.raises(StorageError) as caught, replaced_together(tmp_path, "a.bin") as new:
        content(new)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path} could not be written: the file is larger than is allowed there")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def _together(folder, content):
    with replaced_together(folder, "a.bin") as new:
        (new / "a.bin").write_bytes(content)


def test_files_that_were_private_while_they_were_made_are_not_after(tmp_path):
    with replaced_together(tmp_path, "a.bin") as new:
        (new / "a.bin").touch(mode=0o600)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


def test_two_who_write_at_once_are_not_mixed(tmp_path, monkeypatch):
    """The second waits at the first's first rename until that has put all its files in place."""
    replace, second = os.replace, threading.Thread(target=lambda: write("second"))

    def write(who):
        with replaced_together(tmp_path, "a.bin") as new:
            for name in ("a.bin", "b.bin"):
                (new / name).write_text(who)

    def slow(source, target):
        replace(source, target)
        if threading.current_thread() is not second and not second.is_alive():
            second.start()
            second.join(0.2)
            assert second.is_alive()

    monkeypatch.setattr(os, "replace", slow)
    write("first")
    second.join()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(("a.bin", "b.bin"), "second")


def test_what_is_no_lack_of_room_is_not_taken_for_one(tmp_path):
    assert storage_fault(FileNotFoundError(errno.ENOENT, "no such file"), tmp_path) is None
    assert storage_fault(ValueError("28 rows"), tmp_path) is None
    full = storage_fault(ValueError("RESOURCE_EXHAUSTED: x [os_error_code='28']"), tmp_path / "a" / "b", 3_000_000)
    assert "there is no room left" in str(full)
    assert "3.0 MB wanted" in str(full)
    require_room(tmp_path / "a" / "b", 1)
    with pytest.raises(StorageError, match="there is no room for it"):
        require_room(tmp_path / "a" / "b", 10**18)
