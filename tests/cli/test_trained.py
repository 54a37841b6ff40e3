"""`compare --finetune`: what is refused before any work, what is trained, what is not trained twice, what is shown."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.report import comparison, synthetic
from support.training import write_task

from jaxsmooth import report
from jaxsmooth.cli import trained
from jaxsmooth.cli.commands import Compare
from jaxsmooth.cli.main import main
from jaxsmooth.errors import ConfigError, OptionError
from jaxsmooth.studies import compare
from jaxsmooth.training import logging, loop

SYNTHETIC = synthetic(2, 2)
FOUND = comparison(dataclasses.replace(SYNTHETIC.model, name="contranorm"), SYNTHETIC.data)  # its remedy's label


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), 8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--with", "attention-dropout"], "attention-dropout draws one mask for all steps"),
        (["--precision", "float64"], "trains in float32; got --precision float64"),
        (["--seeds", "0"], "--seeds must be at least 1; got 0"),
        (["--learning-rate", "20"], "learning_rate must lie in"),
        (["--finetune", "movie-revews"], "Did you mean 'movie-reviews'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(task, flags, message, tmp_path, capfd):
    common = ["compare", "tiny", "--data", "tiny", "--finetune", str(task), "--out", str(tmp_path / "out")]
    assert main([*common, *flags]) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_that_trains_keeps_freed_memory(task, tmp_path, kept_heap):
    assert main(["finetune", "tiny", "--task", str(task), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert len(kept_heap) == 1


@pytest.fixture
def quick(monkeypatch):
    """Training without training: the score is 0.5, with a remedy more, and with the seed more still."""
    seen = []

    def finetune(config, *, progress):
        seen.append(config)
        score = 0.5 + 0.1 * bool(config.remedy) + 0.01 * config.seed
        for folder in ("checkpoints", "best"):
            (config.out / folder).mkdir(parents=True)
        return loop.Outcome(7, 0, False, 5, {"loss": 1.0, "accuracy": score}, config.out)

    records = [{"step": 5, "probe/cosine_similarity": [0.1, 0.3]}, {"step": 7, "probe/cosine_similarity": [0.1, 0.9]}]
    monkeypatch.setattr(loop, "finetune", finetune)
    monkeypatch.setattr(logging, "read_records", lambda folder: records)
    return seen


def test_every_remedy_is_trained_with_every_seed_and_once(task, quick, tmp_path):
    command = Compare("tiny", out=tmp_path, finetune=str(task), seeds=2, remedies="contranorm")
    found = trained.with_training(FOUND, command).training
    assert [(config.remedy, config.seed) for config in quick] == [
        ("", 0),
        ("", 1),
        ("contranorm", 0),
        ("contranorm", 1),
    ]
    assert (found.metric, found.steps, found.seeds) == ("accuracy", 7, (0, 1))
    np.testing.assert_allclose([run.scores for run in found.runs], [[0.5, 0.51], [0.6, 0.61]])
    np.testing.assert_allclose([run.cosine for run in found.runs], 0.3)  # that of the best step
    assert sorted(path.name for path in (tmp_path / "trained").iterdir()) == [
        *("contranorm-seed0", "contranorm-seed1", "none-seed0", "none-seed1")
    ]
    assert [path.name for path in (tmp_path / "trained" / "none-seed0").iterdir()] == ["trained.json"]
    again = trained.with_training(FOUND, command).training
    assert len(quick) == 4
    np.testing.assert_array_equal([run.scores for run in again.runs], [run.scores for run in found.runs])
    trained.with_training(FOUND, dataclasses.replace(command, steps=9))
    assert len(quick) == 8  # other settings are another run


def with_scores(*scores: list[float]):
    made = {
        entry.label: [{"score": score, "cosine": 0.4, "steps": 10} for score in own]
        for entry, own in zip(FOUND.entries, scores, strict=True)
    }
    return compare.with_training(FOUND, "mine", "accuracy", made)


def test_accuracy_stands_beside_similarity():
    found = with_scores([0.8, 0.9], [0.85, 0.89])
    out = io.StringIO()
    report.print_comparison(found, Console(file=out, width=120))
    said = " ".join(out.getvalue().split())
    assert (
        "And accuracy? Trained on mine for 10 steps with 2 seeds, the model without a remedy has accuracy 0.850" in said
    )
    assert "The best remedy is contranorm with 0.870, better than none in 1 of 2 seeds. So few seeds" in said
    assert "No remedy was trained with" not in said
    written = report.comparison_json(found)["training"]
    assert json.loads(json.dumps(written))["runs"][1] == {
        "label": "contranorm",
        "scores": [0.85, 0.89],
        "cosine": [0.4, 0.4],
    }
    assert "So few seeds" not in " ".join(
        report.sections.trained.training_words(with_scores([0.8] * 6, [0.9] * 6).training).split()
    )


def test_runs_that_do_not_match_are_refused():
    with pytest.raises(OptionError, match="made must have runs of none, contranorm, as many of each"):
        with_scores([0.8, 0.9], [0.85])
    assert issubclass(ConfigError, ValueError)


@pytest.mark.long
def test_a_real_training(task, tmp_path, capfd):
    flags = ["--data", "tiny", "--with", "contranorm", "--finetune", str(task), "--seeds", "1", "--steps", "2"]
    assert main(["compare", "tiny", *flags, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["training"]
    assert [run["label"] for run in content["runs"]] == ["none", "contranorm"]
    assert all(0 <= score <= 1 for run in content["runs"] for score in run["scores"])
    assert all(0 < cosine < 1 for run in content["runs"] for cosine in run["cosine"])
    assert "And accuracy?" in capfd.readouterr().out
