"""Accidents of long runs: each happens to a small run, and the run goes on from its last good checkpoint."""

import contextlib
import dataclasses
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.training import finish, flags, free_port, start

from jaxsmooth.cli.main import main
from jaxsmooth.training import loop, run
from jaxsmooth.training.guards.lock import alone_in
from jaxsmooth.training.guards.memory import Need
from jaxsmooth.training.logging import read_records

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Where a save is cut short, orbax's own event loop is collected while it still has work.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHORT = {
    "steps": 6, "eval-every": 6, "checkpoint-every": 2, "log-every": 4, "probe": 0, "limit": 16, "max-length": 8,
    "prng": "rbg", "accumulate": 2,
}  # fmt: skip


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def records(folder: Path) -> list[tuple]:
    return [(r["step"], r.get("train/loss"), r.get("validation/loss")) for r in read_records(folder)]


@contextlib.contextmanager
def accident(call: int, happens):
    """It befalls the batch of the call-th step that is run: `happens(batch)` gives the batch to train on."""
    place, numbers = loop.place_batch, iter(range(1, 1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop,
            "place_batch",
            lambda data, mesh, *, rows: place(happens(data) if next(numbers) == call else data, mesh, rows=rows),
        )
        yield


def terminated(data):
    for _ in range(2):  # schedulers send it to the group and to the process
        os.kill(os.getpid(), signal.SIGTERM)
    return data


def poisoned(data):
    return dataclasses.replace(data, weights=np.full_like(data.weights, np.nan))


@contextlib.contextmanager
def small_files(limit: int = 20_000):
    """From the call of what is yielded on, no file may grow beyond this: a disk that fills while it is written to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(data):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        return data

    try:
        yield shrink
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """All runs here have the same settings: one compiled step serves them all."""
    compile_step, made = loop.compile_step, []

    def once(trainer):
        if not made:
            made.append(compile_step(trainer))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_step", once)
        yield


@pytest.fixture(scope="module")
def undisturbed(task, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(flags(task, out, **SHORT)) == 0
    return out


@pytest.mark.compatibility(
    "long",
    "SIGTERM while `finetune` runs",
    "a checkpoint after the step, one line, status 143; resumes to the bit",
    was=2,
)
@pytest.mark.compatibility(
    "long",
    "the disk fills during a checkpoint",
    "one line: disk, wanted, free; status 1; the last checkpoint is used",
    was=2,
)
@pytest.mark.compatibility(
    "long",
    "a loss becomes NaN",
    "stops there; names step, last finite loss and rate; keeps the last good checkpoint",
    was=1,
)
def test_a_run_through_every_accident_ends_in_the_bits_of_an_undisturbed_one(task, undisturbed, tmp_path, capfd):
    out, handler = tmp_path / "run", signal.getsignal(signal.SIGTERM)

    def run_and_read() -> tuple[int, str]:
        status = main(flags(task, out, **SHORT))
        return status, capfd.readouterr().err.strip().splitlines()[-1]

    with accident(3, terminated):
        status, said = run_and_read()
    assert (status, steps_of(out)) == (143, [2, 3])
    assert "ended by SIGTERM after step 3 of 6, which is saved in" in said
    assert signal.getsignal(signal.SIGTERM) == handler

    with small_files() as shrink, accident(1, shrink):
        status, said = run_and_read()
    assert (status, steps_of(out)) == (1, [2, 3])
    assert f"{out / 'checkpoints'} could not be written: the file is larger than is allowed" in said
    assert "MB wanted" in said

    with accident(2, poisoned):
        status, said = run_and_read()
    assert (status, steps_of(out)) == (1, [3, 4])
    assert "the loss of step 5 is nan, at a learning rate of 0.0012; step 4 had a loss of 0.6" in said
    assert "The checkpoint of step 4 is from before it and is kept" in said
    assert [step for step, *_ in records(out)] == [4]

    assert main(flags(task, out, **SHORT)) == 0
    ours, theirs = (load_file(folder / "best" / "model.safetensors") for folder in (out, undisturbed))
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert records(out) == records(undisturbed)


@pytest.mark.compatibility(
    "long", "weights that hold NaN", "refused before the first step, by the parameter's name", was=1
)
@pytest.mark.compatibility(
    "long", "no room for even one checkpoint", "refused before the first step: disk, wanted, free", was=2
)
def test_what_cannot_end_well_is_refused_before_the_first_step(task, tmp_path, monkeypatch, capsys):
    initial = run.build_model

    def broken(*arguments):
        model = initial(*arguments)
        kernel = model.head.out.kernel.at[0, 0].set(np.nan)
        return dataclasses.replace(
            model, head=dataclasses.replace(model.head, out=dataclasses.replace(model.head.out, kernel=kernel))
        )

    with monkeypatch.context() as patch:
        patch.setattr(run, "build_model", broken)
        assert main(flags(task, tmp_path / "nan", **SHORT)) == 1
    assert (
        "model.head.out.kernel: the model's own values are not finite before the first step" in capsys.readouterr().err
    )
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("jaxsmooth.files.shutil.disk_usage", lambda path: usage)
    assert main(flags(task, tmp_path / "full", **SHORT)) == 1
    said = capsys.readouterr().err
    assert "cannot be written: there is no room for it. The disk is that of /" in said
    assert "MB wanted, 0.001 MB free" in said


@pytest.mark.compatibility(
    "long",
    "two runs in one folder at once",
    "the second is refused: process, host and since when the first runs",
    was=2,
)
@pytest.mark.compatibility(
    "long", "`evaluate` on a folder that a run holds", "reads; the run's files are left alone", was=0
)
def test_a_second_run_in_a_folder_is_refused(task, undisturbed, capsys):
    with alone_in(undisturbed):
        assert main(flags(task, undisturbed, **SHORT)) == 1
        said = capsys.readouterr().err
        assert f"another run holds {undisturbed}: process {os.getpid()} on " in said
        assert main(["evaluate", str(undisturbed), "--split", "validation"]) == 0
    assert "choose another --out" in said


@pytest.mark.compatibility(
    "size",
    "`finetune` of a step that does not fit without recomputation",
    "recomputes the least that is estimated to fit, and says so",
    was=2,
)
def test_the_recomputation_that_fits_is_chosen_by_the_devices_memory(task, tmp_path, monkeypatch, capsys):
    def estimate(trainer, model, rows, length, *, state, devices):
        return [Need("none", state, 2**34, 0), Need("dots", state, 2**32, 0), Need("full", state, 2**30, 0)]

    monkeypatch.setattr(run, "device_memory", lambda: 2**33)
    monkeypatch.setattr(run, "estimate", estimate)
    assert main([*flags(task, tmp_path / "run", **SHORT), "--dry-run"]) == 0
    assert "--remat dots: without recomputation" in " ".join(capsys.readouterr().out.split())


@pytest.mark.scale
def test_processes_of_one_run_agree_on_the_step_that_sigterm_ends(task, tmp_path):
    out = tmp_path / "together"
    shared = [*flags(task, out, steps=60, **{"eval-every": 60, "checkpoint-every": 60}), "--mesh", "data=2"]

    def both():
        address = f"127.0.0.1:{free_port()}"
        command = [*shared, "--coordinator", address, "--processes", "2", "--process"]
        return [start([*command, str(number)]) for number in (0, 1)]

    processes = both()
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if any(record["step"] >= 4 for record in read_records(out)):
                break
        time.sleep(0.01)
    os.kill(processes[1].pid, signal.SIGTERM)  # one of the two
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 143, output[-3000:]
        assert "ended by SIGTERM after step" in output
    assert len(steps_of(out)) == 1
    for process in both():
        finish(process, timeout=400)
    assert 60 in steps_of(out)
