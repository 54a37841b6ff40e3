"""Fine-tuning from the command line: a run, its resumption after kill -9, evaluation, prediction, refusals."""

import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.training import FakeWandb, finish, flags, start

import jaxsmooth
from jaxsmooth.cli.main import main
from jaxsmooth.training import loop
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.logging import read_records
from jaxsmooth.training.loop import EarlyStopping
from jaxsmooth.training.predict import evaluate, load_run, write_predictions
from jaxsmooth.training.run import prepare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(start(flags(task, out)))
    return out


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["train/loss"]) for record in read_records(folder) if "train/loss" in record]


def same_end(found: Path, whole: Path) -> None:
    """The same bits, the same record of losses and scores."""
    ours, theirs = (load_file(folder / "best" / "model.safetensors") for folder in (found, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert losses(found) == losses(whole)


def test_a_run_learns_and_leaves_what_it_should(whole):
    assert {"best", "checkpoints", "config.json", "events", "metrics.jsonl"} <= {path.name for path in whole.iterdir()}
    steps = [step for step, _ in losses(whole)]
    assert steps == list(range(2, 25, 2))
    records = read_records(whole)
    evaluated = [record for record in records if "validation/accuracy" in record]
    assert [record["step"] for record in evaluated] == [12, 24]
    assert evaluated[-1]["validation/loss"] < evaluated[0]["validation/loss"]
    assert evaluated[-1]["validation/accuracy"] > 0.6
    # the embedding's output and four layers; the second evaluation differs, for the model has moved
    for name in ("relative_distance", "cosine_similarity"):
        first, last = (record[f"probe/{name}"] for record in evaluated)
        assert len(first) == 5
        assert all(0 < value < 1 for value in first)
        assert first != last
    assert all(record["speed/tokens_per_second"] > 0 for record in records if "train/loss" in record)
    assert any((whole / "events").iterdir())


@pytest.mark.long
def test_a_second_seed_compiles_nothing_that_the_first_has(task, tmp_path, traces, capsys):
    """Neither step nor evaluation is traced again; the seed counts all the same; another rate is another program."""
    settings = {"steps": 2, "eval-every": 2, "checkpoint-every": 2, "probe": 0}
    assert main(flags(task, tmp_path / "0", **settings)) == 0
    first = len(traces)
    assert main(flags(task, tmp_path / "1", seed=1, **settings)) == 0
    assert len(traces) == first > 0
    ours, theirs = (losses(tmp_path / run) for run in ("0", "1"))
    assert ours != theirs
    config = FinetuneConfig.read(tmp_path / "0" / "config.json")
    trainers = [
        prepare(dataclasses.replace(config, **other)).trainer for other in ({"seed": 2}, {"learning_rate": 1e-3})
    ]
    assert [trainer is prepare(config).trainer for trainer in trainers] == [True, False]


def kill_when(process, folder: Path, ready) -> None:
    """SIGKILL as soon as `ready()`; the process must not have ended by itself."""
    deadline = time.monotonic() + 200
    while not ready():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def steps_done(folder: Path) -> int:
    try:
        return max((record["step"] for record in read_records(folder)), default=0)
    except OSError:
        return 0


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_bits(task, whole, tmp_path):
    out = tmp_path / "run"
    kill_when(start(flags(task, out)), out, lambda: steps_done(out) >= 14)
    done = steps_done(out)
    assert done < 24
    finish(start(flags(task, out)))
    same_end(out, whole)


@pytest.mark.kills
def test_twenty_kills_at_random_moments(task, tmp_path):
    """One run killed twenty times, at moments drawn anew, against one that is left alone."""
    long = {"steps": 200, "checkpoint-every": 2, "eval-every": 25}
    alone, out = tmp_path / "alone", tmp_path / "run"
    finish(start(flags(task, alone, **long)), timeout=1200)
    draw, kills = random.Random(0), 0
    for _ in range(200):
        process = start(flags(task, out, **long))
        before = steps_done(out)
        # A few steps on, then some milliseconds: in the middle of a step, a save, a deletion, or a record.
        wanted, pause = before + draw.randint(2, 8), draw.random() * 0.3
        while process.poll() is None and steps_done(out) < wanted:
            time.sleep(0.005)
        time.sleep(pause)
        if process.poll() is not None:
            finish(process)
            break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        if kills == 20:
            finish(start(flags(task, out, **long)), timeout=1200)
            break
    print(f"\n{kills} kills")
    assert kills == 20
    same_end(out, alone)


@pytest.fixture(scope="module")
def read_back(whole, tmp_path_factory) -> tuple[dict, Path]:
    """Scores on the validation split and predictions of two sentences, from the run's folder."""
    folder = tmp_path_factory.mktemp("predictions")
    (folder / "text.txt").write_text("the film is dull\nso it is worth\n", encoding="utf-8")
    write_predictions(whole, str(folder / "text.txt"), folder / "predictions.jsonl")
    return evaluate(whole, "validation"), folder / "predictions.jsonl"


def test_evaluate_and_predict_read_the_run_back(whole, read_back):
    found, predicted = read_back
    logged = [record for record in read_records(whole) if record["step"] == found["step"]][-1]
    assert found["scores"]["accuracy"] == logged["validation/accuracy"]
    lines = [json.loads(line) for line in predicted.read_text(encoding="utf-8").splitlines()]
    assert [line["record"] for line in lines] == [0, 1]
    assert all(abs(sum(line["probabilities"].values()) - 1) < 1e-9 for line in lines)
    assert all(line["label"] == max(line["probabilities"], key=line["probabilities"].get) for line in lines)


def test_evaluate_takes_a_sample_and_predict_a_whole_split(whole, tmp_path, capsys):
    assert main(["evaluate", str(whole), "--split", "validation", "--limit", "8"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 8
    assert main(["predict", str(whole), "--out", str(tmp_path / "p.jsonl")]) == 0
    assert len((tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()) == 48
    assert main(["predict", str(whole), "--data", "rows.tsv", "--out", str(tmp_path / "q.jsonl")]) == 1
    assert "there is no file rows.tsv" in capsys.readouterr().err
    assert not (tmp_path / "q.jsonl").exists()


def test_the_exported_folder_needs_nothing_else(whole, read_back, tmp_path, capsys):
    """Moved away from its run it gives the run's numbers, and is a model for every other command."""
    scores, predicted = read_back
    best = shutil.copytree(whole / "best", tmp_path / "best")
    assert main(["evaluate", str(best), "--split", "validation"]) == 0
    assert json.loads(capsys.readouterr().out) == scores
    out = tmp_path / "predictions.jsonl"
    assert main(["predict", str(best), "--data", str(predicted.with_name("text.txt")), "--out", str(out)]) == 0
    assert out.read_bytes() == predicted.read_bytes()
    assert main(["evaluate", str(best), "--step", "12"]) == 1
    assert "of one step only" in capsys.readouterr().err
    model, tokenizer = jaxsmooth.load(best)
    _, trained, _ = load_run(whole)
    for ours, theirs in zip(jax.tree.leaves(model), jax.tree.leaves(trained.encoder), strict=True):
        assert np.array_equal(ours, theirs)
    assert tokenizer.fingerprint == jaxsmooth.load("tiny")[1].fingerprint


def test_dry_run_counts_and_leaves_nothing(task, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*flags(task, out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jaxsmooth.load("tiny")[0]))
    assert f"{parameters + 64 * 2 + 2:,}" in shown
    assert not out.exists()


@pytest.mark.compatibility("long", "a warm-up longer than the run", "refused before any work, by both numbers", was=3)
@pytest.mark.compatibility(
    "long", "a batch of far more records than there are", "refused before memory is asked for", was=2
)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max-length": 4096}, "max_length must be at most 128"),
        ({"remedy": "prayer"}, "prayer"),
        ({"remedy": "contranorm,attnscale"}, "one remedy"),
        ({"remedy": "contranorm+attention-dropout:0.5"}, "--attention-dropout draws anew"),
        ({"mesh": "data=64"}, "needs 64 devices"),
        ({"task": "no-such-task"}, "no-such-task"),
        ({"warmup": 25}, "the warm-up must not be longer than the run's 24 steps; got 25"),
        ({"batch-size": 100_000}, "batch_size must be at most 1024, for there are 48 records to train on; got 100000"),
    ],
)
def test_refusals_come_before_any_work(settings, message, task, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(flags(task, out, **settings)) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_of_another_run_is_refused(whole, task, capsys):
    assert main(flags(task, whole, **{"learning-rate": 0.5})) == 1
    assert "learning_rate=0.003; got 0.5" in capsys.readouterr().err


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    """A copy of the whole run, to go on with."""
    return Path(shutil.copytree(whole, tmp_path / "finished"))


def test_a_finished_run_says_so_and_goes_on_for_more_steps(task, whole, finished, capsys, monkeypatch):
    """Besides: its records go to the callback and to the logger that it names, over all resumptions to one run."""
    assert main(flags(task, finished)) == 0
    assert "This run was finished before, and nothing was done; with more --steps" in capsys.readouterr().out
    assert losses(finished) == losses(whole)
    assert main(flags(task, finished, steps=20)) == 1
    assert "a run of 24 steps, which can go on for more, not for fewer; got 20" in capsys.readouterr().err
    wandb, heard = FakeWandb(), {}
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = dataclasses.replace(FinetuneConfig.read(finished / "config.json"), out=finished, logger="wandb", steps=28)
    found = loop.finetune(config, log=lambda step, numbers: heard.setdefault(step, {}).update(numbers))
    assert (found.begun, found.steps, found.stopped_early) == (24, 28, False)
    assert [step for step, _ in losses(finished)] == list(range(2, 29, 2))
    assert losses(finished)[:12] == losses(whole)
    assert heard.keys() == {26, 28}
    last = {name: value for record in read_records(finished) if record["step"] == 28 for name, value in record.items()}
    assert heard[28]["train/loss"] == last["train/loss"]
    assert heard[28]["validation/accuracy"] == last["validation/accuracy"]
    cosines = next(name for name, value in last.items() if isinstance(value, list))
    assert [heard[28][f"{cosines}/{k}"] for k in range(len(last[cosines]))] == last[cosines]
    assert wandb.heard == heard
    assert wandb.finished == 1
    assert wandb.settings[0]["name"] == "finished"
    assert wandb.settings[0]["config"]["steps"] == 28


def test_a_tie_counts_as_better():
    stopping = EarlyStopping()
    for step, score in ((1, 0.5), (2, 0.4), (3, 0.3), (4, 0.5)):
        stopping = stopping.after(step, score, {"accuracy": score})
    assert (stopping.best_step, stopping.worse) == (4, 0)
    stopping = stopping.after(5, float("-inf"), {})
    assert (stopping.best_step, stopping.worse, stopping.scores) == (4, 1, {"accuracy": 0.5})
