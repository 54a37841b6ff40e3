"""Checkpoints: what comes back is what was saved; a damaged one is found out; the best one stays."""

import logging
import os
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import to_arrays

from jaxsmooth.errors import CheckpointError, StorageError
from jaxsmooth.training.checkpointing import Checkpoints, DamagedCheckpointWarning, _fingerprints
from jaxsmooth.training.guards.orbax_noise import not_of_orbax

STATE = {
    "kernel": jnp.arange(4096, dtype=jnp.float32).reshape(64, 64) / 7,
    "key": jax.random.key_data(jax.random.key(3)),
    "step": jnp.int32(5),
    "half": jnp.arange(6, dtype=jnp.bfloat16),
}


def like(state=STATE):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state)


def scaled(factor):
    return {**STATE, "kernel": STATE["kernel"] * factor}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three checkpoints, of which the first has the best score."""
    folder = tmp_path_factory.mktemp("written") / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step, score in ((10, 0.9), (20, 0.1), (30, None), (40, 0.2)):
            checkpoints.save(step, scaled(step), {"position": step}, score=score)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def test_the_newest_comes_back_bit_for_bit_and_the_best_is_kept(folder):
    with Checkpoints(folder) as checkpoints:
        assert sorted(checkpoints.manager.all_steps()) == [10, 30, 40]
        assert checkpoints.best() == 10
        newest, best = checkpoints.restore(like()), checkpoints.restore(like(), step=10)
    assert (newest.step, newest.extra, best.extra) == (40, {"position": 40}, {"position": 10})
    for name, value in to_arrays(scaled(40)).items():
        found = to_arrays(newest.state)[name]
        assert found.dtype == value.dtype
        assert np.array_equal(found, value)


def test_an_empty_folder_gives_nothing(tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.restore(like()) is None
        assert checkpoints.best() is None


def test_orbax_says_nothing_to_the_user(folder, caplog):
    """It warns where a checkpoint without a score is written and read; absl's other users are still heard."""

    def used():
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="absl"), Checkpoints(folder) as checkpoints:
            checkpoints.save(50 + 10 * len(heard), STATE, {}, score=None)
            checkpoints.wait()
            checkpoints.restore(like())
            logging.getLogger("absl").warning("of somebody else")
        return [record for record in caplog.records if record.name == "absl" and record.levelno >= logging.WARNING]

    heard = []
    heard.append([record.getMessage() for record in used()])
    logging.getLogger("absl").removeFilter(not_of_orbax)
    try:
        heard.append([record.getMessage() for record in used()])
    finally:
        logging.getLogger("absl").addFilter(not_of_orbax)
    assert heard[0] == ["of somebody else"]
    assert len(heard[1]) > 1


def flip(folder):
    """One bit in the middle of every larger file of the arrays."""
    for path in (folder / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 2000 and "/d/" in str(path):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 4
            path.write_bytes(bytes(data))


def cut(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(at):
    """As a loss of power leaves files."""
    for path in at.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.compatibility(
    "long", "a newest checkpoint that is cut short, or of other bits", "said, and the one before it is used", was=0
)
@pytest.mark.compatibility(
    "long", "a newest checkpoint whose files are empty", "said, and the one before it is used", was=2
)
@pytest.mark.parametrize(
    "damage",
    [
        flip,
        cut,
        emptied,
        lambda at: (at / "extra" / "metadata").write_text("{"),
        lambda at: shutil.rmtree(at / "state"),
        lambda at: [shutil.rmtree(each) for each in at.iterdir() if each.is_dir()],
    ],
    ids=["one bit", "cut short", "emptied", "position unreadable", "arrays gone", "nothing in it"],
)
def test_a_damaged_newest_checkpoint_is_said_and_left_out(damage, folder):
    damage(folder / "40")
    with warnings.catch_warnings(record=True, action="always") as said, Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(like())
        assert (found.step, found.extra) == (30, {"position": 30})
        assert np.array_equal(found.state["kernel"], scaled(30)["kernel"])
        # Among others: orbax leaves coroutines to the garbage collector, which complains of them when it comes by.
        told = [str(each.message) for each in said if issubclass(each.category, DamagedCheckpointWarning)]
        assert ["40 is damaged" in text for text in told] == [True]
        checkpoints.save(40, scaled(41), {"position": 41})  # the run comes by the same step again
        checkpoints.wait()
        with warnings.catch_warnings(action="error"):
            assert np.array_equal(checkpoints.restore(like()).state["kernel"], scaled(41)["kernel"])
    assert (folder.parent / "checkpoints-damaged" / "40").is_dir()


def test_another_runs_checkpoint_is_refused(folder):
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match=r"bias.* is in only one"):
        checkpoints.restore(like({**STATE, "bias": jnp.zeros(3)}))


def test_a_damaged_checkpoint_that_was_asked_for_is_an_error(folder):
    shutil.rmtree(folder / "10" / "state")
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="10 cannot be restored"):
        checkpoints.restore(like(), step=10)


def test_a_fingerprint_sees_every_bit_and_every_exchange():
    value = jax.random.normal(jax.random.key(0), (5, 7), jnp.float32)
    words = np.asarray(value).view(np.uint32)
    changed = [value]
    for place in range(words.size):
        other = words.copy().reshape(-1)
        other[place] ^= np.uint32(1 << (place % 32))
        changed.append(jnp.asarray(other.view(np.float32).reshape(5, 7)))
    changed += [value[::-1], jnp.roll(value, 1, 1)]
    marks = np.asarray(_fingerprints(changed))
    assert np.all(marks[1:] != marks[0])
    assert marks[0] == np.asarray(_fingerprints([value + 0]))[0]


def test_a_damaged_best_checkpoint_is_left_out_for_the_next_best(folder):
    with Checkpoints(folder) as checkpoints:
        best = checkpoints.best()
        flip(folder / str(best))
        with pytest.warns(DamagedCheckpointWarning, match=f"{best} is damaged"):
            found = checkpoints.restore_best(like())
        assert found.step != best
        assert np.array_equal(found.state["kernel"], scaled(found.step)["kernel"])
        assert checkpoints.best() in (found.step, None)
    assert (folder.parent / "checkpoints-damaged" / str(best)).is_dir()


@pytest.mark.compatibility(
    "long",
    "a newest checkpoint that is not finite, of a run that had diverged",
    "said, and the one before it is used",
    was=1,
)
def test_a_checkpoint_that_is_not_finite_is_left_out(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, STATE, {})
        checkpoints.save(2, {**STATE, "half": STATE["half"].at[3].set(jnp.inf)}, {})
        checkpoints.wait()
        with pytest.warns(DamagedCheckpointWarning, match="half.* is not finite: the run had diverged"):
            assert checkpoints.restore(like()).step == 1


@pytest.mark.compatibility(
    "long", "`evaluate` while the run saves", "reads; what the run is writing is not removed", was=1
)
def test_a_reader_leaves_the_folder_as_it_is(folder):
    unfinished = folder / "50.orbax-checkpoint-tmp"
    unfinished.mkdir()
    cut(folder / "40")
    with Checkpoints(folder, writes=False) as reader:
        with pytest.warns(DamagedCheckpointWarning, match="40 is damaged"):
            assert reader.restore(like()).step == 30
        shutil.rmtree(folder / "10")  # the run has a better one
        with Checkpoints(folder) as run, warnings.catch_warnings(action="error"):
            run.save(50, scaled(50), {"position": 50}, score=0.95)
            run.wait()
            assert reader.restore_best(like()).step == 50
    assert {path.name for path in folder.iterdir()} == {"40", "50"}
    assert not folder.with_name("checkpoints-damaged").exists()


@pytest.mark.compatibility("long", "a folder that is removed while the run goes on", "one line", was=2)
def test_a_folder_that_is_gone_is_one_line(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    with Checkpoints(folder) as run:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(StorageError, match="checkpoints is gone or can no longer be written to"):
            run.save(1, STATE, {})


FULL_DISK = """
import gc, resource, sys, jax.numpy as jnp
from pathlib import Path
from jaxsmooth.errors import StorageError
from jaxsmooth.training.checkpointing import Checkpoints

state = {f"kernel{i}": jnp.arange(20_000.0) * i for i in range(30)}
before = resource.getrlimit(resource.RLIMIT_FSIZE)
for trial in range(12):
    try:
        with Checkpoints(Path(sys.argv[1]) / str(trial)) as run:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            try:
                run.save(1, state, {})
                run.wait()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
    except StorageError as error:
        print(error)
    gc.collect()
"""


def test_of_many_arrays_on_a_full_disk_orbax_says_nothing_beside_our_line(tmp_path):
    """Its event loop closes while the others are under way: dozens of tracebacks, at any time up to the exit."""
    own = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # it has no room either, and jax says so
    words = [sys.executable, "-c", FULL_DISK, tmp_path]
    ran = subprocess.run(words, env=own, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert [line.count("could not be written: the file is larger") for line in ran.stdout.splitlines()] == [1] * 12
