"""Whole runs with options: fusion and a remedy, patience, several processes; trained, saved, read back."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from support.training import finish, flags, free_port, start, to_arrays, write_task

from jaxsmooth.bert.fusion import Fusion
from jaxsmooth.cli.main import main
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.tasks import TrainBatch
from jaxsmooth.training.logging import read_records
from jaxsmooth.training.predict import load_run
from jaxsmooth.training.run import prepare
from jaxsmooth.types import Batch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NO_DROPOUT = {"hidden-dropout": 0, "attention-dropout": 0, "head-dropout": 0, "probe": 0}


def evaluations(folder: Path) -> list[tuple[int, float]]:
    records = [record for record in read_records(folder) if "validation/accuracy" in record]
    return [(record["step"], record["validation/accuracy"]) for record in records]


@pytest.mark.long
def test_fusion_and_a_remedy_are_trained_saved_and_read_back(task, tmp_path, capsys):
    out, text = tmp_path / "run", tmp_path / "text.txt"
    options = {"fusion": "concat", "remedy": "contranorm:0.3", "steps": 4, "eval-every": 4, **NO_DROPOUT}
    assert main(flags(task, out, **options)) == 0
    capsys.readouterr()

    run, model, step = load_run(out)
    assert isinstance(model.fusion, Fusion)
    assert run.trainer.remedy is not None
    before = to_arrays(run.model)
    moved = {name for name, value in to_arrays(model).items() if not np.array_equal(value, before[name])}
    assert {name for name in before if name.startswith("fusion.")} <= moved

    assert main(["evaluate", str(out), "--split", "validation"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(found["step"], found["scores"]["accuracy"])] == evaluations(out)
    assert step == 4

    text.write_text("the film is dull\n", encoding="utf-8")
    assert main(["predict", str(out), "--data", str(text), "--out", str(tmp_path / "with.jsonl")]) == 0
    predicted = json.loads((tmp_path / "with.jsonl").read_text(encoding="utf-8"))["probabilities"]
    # the exported folder alone has fusion, head and remedy too
    assert (out / "best" / "head.safetensors").exists()
    arguments = ["--data", str(text), "--out", str(tmp_path / "alone.jsonl")]
    assert main(["predict", str(out / "best"), *arguments]) == 0
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "with.jsonl").read_bytes()

    data = as_data(run.tokenizer(["the film is dull"]))
    plain_trainer, unfused = dataclasses.replace(run.trainer, remedy=None), dataclasses.replace(model, fusion=None)
    for trainer, weights in ((plain_trainer, model), (run.trainer, unfused)):
        logits = np.asarray(jax.jit(trainer.logits)(weights, data))[0]
        without = np.exp(logits) / np.exp(logits).sum()
        assert abs(without[1] - predicted["yes"]) > 1e-4  # fusion and remedy each have a part in the prediction


def as_data(batch: Batch) -> TrainBatch:
    rows = batch.tokens.shape[0]
    return TrainBatch(batch, np.zeros(rows, np.int32), np.ones(rows, np.float32), np.arange(rows, dtype=np.int32))


def test_patience_ends_a_run_at_its_best_step(tmp_path, capsys):
    """Validation labels are the wrong way round: the more is learnt, the worse the score."""
    source = write_task(tmp_path / "task")
    swapped = {"no": "yes", "yes": "no"}
    head, *lines = (source / "validation.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    text = "\n".join([head, *(f"{words}\t{swapped[label]}" for words, label in rows)]) + "\n"
    (source / "validation.tsv").write_text(text, encoding="utf-8")

    out = tmp_path / "run"
    options = {"patience": 2, "eval-every": 4, "checkpoint-every": 100, "steps": 400, "learning-rate": 3e-3}
    command = flags(source, out, **{**options, **NO_DROPOUT})
    assert main(command) == 0
    assert "stopped early" in capsys.readouterr().out
    evaluated = evaluations(out)
    best = max(evaluated, key=lambda each: (each[1], each[0]))
    assert len(evaluated) == evaluated.index(best) + 3  # two evaluations without a better one, and no third
    assert evaluated[-1][0] < 400
    _, model, step = load_run(out)
    assert step == best[0]

    # the same command finds nothing left to do
    assert main(command) == 0
    assert f"{evaluated[-1][0]} steps, stopped early; best at step {best[0]}" in capsys.readouterr().out
    assert evaluations(out) == evaluated
    again = load_run(out)[1]
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        assert np.array_equal(one, other)


def by_address(count: int):
    """What every process is told, and its environment: where process 0 is."""
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(count)]
    return [([*address, "--process", str(number)], {}) for number in range(count)]


def by_slurm(count: int):
    """As `srun` starts them on one node: the same command, and SLURM's variables."""
    shared = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(count)}
    told = ["--coordinator", "auto"]
    return [
        (told, {**shared, "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)})
        for number in range(count)
    ]


@pytest.mark.scale
@pytest.mark.parametrize(("launch", "count"), [(by_address, 2), (by_slurm, 4)], ids=["loopback", "slurm"])
def test_several_processes_finetune_as_one_and_one_reads_what_they_saved(launch, count, task, tmp_path, capsys):
    alone, out = tmp_path / "alone", tmp_path / "together"
    options = {"steps": 12, "eval-every": 6}
    finish(start(flags(task, alone, **options)))
    shared = [*flags(task, out, **options), "--mesh", f"data={count}"]
    for process in [start([*shared, *told], env=env) for told, env in launch(count)]:
        finish(process, timeout=400)
    for name, tolerance in (("train/loss", 5e-6), ("validation/loss", 5e-6), ("validation/accuracy", 0)):
        ours, theirs = ([r[name] for r in read_records(folder) if name in r] for folder in (out, alone))
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    assert main(["evaluate", str(out), "--split", "validation"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["scores"]["accuracy"]) in evaluations(out)


def test_a_limit_gives_every_split_a_sample_of_its_own(tmp_path):
    """Both classes, though the first examples of the file are of one."""
    source = write_task(tmp_path / "task", records=64)
    for split in ("train", "validation", "test"):
        head, *lines = (source / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        ordered = "\n".join([head, *sorted(lines, key=lambda line: line.rpartition("\t")[2])]) + "\n"
        (source / f"{split}.tsv").write_text(ordered, encoding="utf-8")
    config = FinetuneConfig(task=str(source), model="tiny", out=tmp_path / "run", limit=16)
    run = prepare(config)
    for data in (run.train, run.validation):
        assert len(data) == 16
        assert {example.label for example in data.examples} == {0, 1}


def test_one_answer_per_question_however_many_windows(tmp_path, capsys):
    """The best scored span of all windows, as evaluation counts it."""
    context = "a dull film , and then the good part of it came . " * 3
    rows = [
        {"id": str(k), "question": "which part ?", "context": context, "answer": "good", "start": context.find("good")}
        for k in range(5)
    ]
    source = tmp_path / "spans"
    source.mkdir()
    for split in ("train", "validation"):
        (source / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out, answers = tmp_path / "run", tmp_path / "answers.jsonl"
    settings = {"max-length": 48, "steps": 1, "batch-size": 4, **NO_DROPOUT}
    assert main(flags(source, out, **settings)) == 0
    assert main(["predict", str(out), "--data", "validation", "--out", str(answers)]) == 0
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert len({line["answer"] for line in lines}) == 1
    assert lines[0]["answer"] in context
    capsys.readouterr()


def test_the_pseudo_perplexity_of_a_masked_lm(tmp_path, capsys):
    source = tmp_path / "texts"
    source.mkdir()
    for split in ("train", "validation"):
        lines = "".join(json.dumps({"text": f"a film {k} ."}) + "\n" for k in range(6))
        (source / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    out = tmp_path / "run"
    assert main(flags(source, out, **{"max-length": 16, "steps": 1, "batch-size": 4, **NO_DROPOUT})) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--split", "validation", "--each-token"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    # One step from random weights: near the size of the vocabulary, 196, and nowhere near 1.
    assert 50 < scores["pseudo_perplexity"] < 1000
