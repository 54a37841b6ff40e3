"""Wheel and sdist hold the whole package and nothing else; `make package` installs and uses them."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from support import ROOT
from support.packaging import contents, faults

BUILD = "from setuptools import build_meta as b; b.build_sdist('out'); b.build_wheel('out')"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of both files, made from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "jaxsmooth", copy / "jaxsmooth", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=lambda folder, names: set(names) - {"test_docs.py"})
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "out"


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_the_whole_package_and_nothing_else(built, pattern):
    (path,) = built.glob(pattern)
    names = contents(path)
    assert faults(path) == []
    for name in (
        "assets/tiny_sentences.txt",
        "report/page.html",
        "report/page.css",
        "report/page.js",
        "report/glossary.toml",
        "py.typed",
    ):
        assert f"jaxsmooth/{name}" in names
    assert any(name.endswith("LICENSE") for name in names)


def test_a_file_left_out_is_seen(built, tmp_path):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "less.whl", "w") as less:
        for name in whole.namelist():
            if name != "jaxsmooth/report/page.css":
                less.writestr(name, whole.read(name))
        less.writestr("jaxsmooth/stray.txt", "")
    assert faults(tmp_path / "less.whl") == ["adds jaxsmooth/stray.txt", "lacks jaxsmooth/report/page.css"]


def test_the_sdist_has_the_project_s_own_papers(built):
    (path,) = built.glob("*.tar.gz")
    papers = {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CITATION.cff",
        "LICENSE",
        "pyproject.toml",
    }
    assert papers <= contents(path)
