"""Unpacking: chosen files come out, hostile and damaged archives are refused whole."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.assets import add_to_tar, files_below

from jaxsmooth.assets.archives import Joined, extract
from jaxsmooth.errors import AssetError


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
    # The last bytes of a tar.gz are padding and a checksum: without them the files are still whole.
    random = Random(0)
    archive = make_archive(tmp_path, kind, [("m/a", random.randbytes(2000)), ("m/b", random.randbytes(2000))])
    whole = archive.read_bytes()
    for number, size in enumerate(range(0, len(whole) - 60, 97)):
        archive.write_bytes(whole[:size])
        target = into / str(number)
        target.mkdir()
        with pytest.raises(AssetError):
            extract(archive, "m", ("*",), target)


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
