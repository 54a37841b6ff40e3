"""Atomic writes, checks of folders, strict JSON."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth.files import atomic_write, check_writable, dumps_strict, strict


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


def test_nan_and_infinity_become_null():
    tree = {"a": np.float64("nan"), "b": [float("inf"), (-float("inf"), 1.5)], 3: {"c": None, "d": True}}
    expected = {"a": None, "b": [None, [None, 1.5]], "3": {"c": None, "d": True}}
    assert strict(tree) == expected
    assert json.loads(dumps_strict(tree), parse_constant=pytest.fail) == expected
    assert json.loads(dumps_strict(tree, indent=2), parse_constant=pytest.fail) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_to_the_last_bit(value):
    assert json.loads(dumps_strict([value])) == [value]
