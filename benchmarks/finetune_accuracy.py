"""Accuracy of a fine-tuned MiniLM on movie reviews, ours against torch: same data, order, schedule and length.

    python benchmarks/finetune_accuracy.py --seeds 0 1 2        # needs the parity extra

Each side trains `--epochs` passes with dropout 0.1 from the same weights and the same initial head, batch by batch in
the same order; only the dropout masks differ. Accuracy is that of the last step, on the validation and the test split.
On 2 otherwise idle CPU cores an epoch of 266 steps takes a few minutes. Results go to
benchmarks/results/finetune_accuracy.json, one entry per side and seed; an entry that is there is not run again.
"""

import dataclasses
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import scipy.optimize
import scipy.special
import tyro
from machine import processor

from jaxsmooth.assets.fetch import fetch
from jaxsmooth.bert.encoder import encode
from jaxsmooth.theory.consensus import token_mean
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.evaluate import evaluate, make_scores
from jaxsmooth.training.logging import read_records
from jaxsmooth.training.loop import finetune, open_stream
from jaxsmooth.training.predict import load_run
from jaxsmooth.training.run import Run, prepare, read_split

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Args:
    """What to run."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of head, order and dropout."""
    sides: tuple[Literal["ours", "torch", "frozen"], ...] = ("ours", "torch", "frozen")
    """Which sides; `frozen` is logistic regression on the untrained encoder's mean token, once for all seeds."""
    epochs: float = 1.0
    """Passes over the training split."""
    model: str = "minilm-l6"
    """Model asset."""
    out: Path = HERE / "results" / "finetune_accuracy.json"
    """Where the results go."""
    runs: Path = Path("runs/finetune-accuracy")
    """Folder of our runs; an interrupted one resumes."""


def settings(args: Args, seed: int) -> FinetuneConfig:
    return FinetuneConfig(
        task="movie-reviews", model=args.model, out=args.runs / f"seed{seed}-{args.epochs:g}", epochs=args.epochs,
        max_length=64, learning_rate=5e-5, seed=seed, eval_every=100, probe=32, checkpoint_every=100,
    )  # fmt: skip


def run_ours(config: FinetuneConfig) -> dict[str, Any]:
    start = time.perf_counter()
    outcome = finetune(config, progress=True)
    seconds = time.perf_counter() - start
    run, model, _ = load_run(config.out, step=outcome.steps)
    scores = {
        split: evaluate(run.trainer, model, read_split(config, run.tokenizer, split), run.mesh, batch_size=32)
        for split in ("validation", "test")
    }
    records = read_records(config.out)
    return {
        "steps": outcome.steps,
        "seconds": seconds,
        **scores,
        "curve": [r for r in records if "validation/accuracy" in r],
        "loss": [(r["step"], r["train/loss"]) for r in records if "train/loss" in r],
    }


def run_torch(config: FinetuneConfig) -> dict[str, Any]:
    import torch
    from train_torch import torch_run

    run = prepare(config)
    torch.manual_seed(config.seed)
    theirs = torch_run(Path(fetch(config.model)), run.model, config, run.steps)
    start, losses, curve = time.perf_counter(), [], []
    with open_stream(run) as stream:
        for step in range(run.steps):
            losses.append(theirs.step(next(stream)))
            if (step + 1) % config.log_every == 0:
                curve.append((step + 1, float(np.mean(losses[-config.log_every :]))))
                print(f"torch, seed {config.seed}: step {step + 1}/{run.steps}, loss {curve[-1][1]:.3f}", flush=True)
    seconds = time.perf_counter() - start
    scores = {s: torch_scores(theirs, run, read_split(config, run.tokenizer, s)) for s in ("validation", "test")}
    return {"steps": run.steps, "seconds": seconds, **scores, "loss": curve}


def torch_scores(theirs: Any, run: Run, data: TaskData) -> dict[str, float]:
    import torch
    from train_torch import inputs

    theirs.model.eval()
    scores = make_scores(data)
    with make_stream(data, batch_size=run.config.batch_size, shuffle=False, epochs=1) as stream, torch.no_grad():
        for batch in stream:
            scores.update(theirs.model(**inputs(batch)).logits.numpy(), batch)
    return scores.result()


def run_frozen(config: FinetuneConfig) -> dict[str, Any]:
    """L2-regularised logistic regression (weight 1, as is usual) on standardised mean tokens of the last layer."""
    run, start = prepare(config), time.perf_counter()
    pairs = {split: frozen_features(run, split) for split in ("train", "validation", "test")}
    features, labels = pairs["train"]
    centre, scale = features.mean(0), features.std(0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = (features - centre) / scale @ weights[:-1] + weights[-1]
        signs = 2.0 * labels - 1
        slope = -signs * scipy.special.expit(-signs * scores)
        gradient = np.append(slope @ ((features - centre) / scale) + weights[:-1], slope.sum())
        return np.logaddexp(0, -signs * scores).sum() + weights[:-1] @ weights[:-1] / 2, gradient

    weights = scipy.optimize.minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
    found = {
        split: {"accuracy": float(np.mean((((x - centre) / scale @ weights[:-1] + weights[-1]) > 0) == y))}
        for split, (x, y) in pairs.items()
        if split != "train"
    }
    return {"steps": 0, "seconds": time.perf_counter() - start, **found}


def frozen_features(run: Run, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean real token of the last layer, [N D] float64, and the labels."""
    mean = jax.jit(lambda batch: token_mean(encode(run.model.encoder, batch)[0], batch.mask)[:, 0])
    features, labels = [], []
    data = read_split(run.config, run.tokenizer, split)
    with make_stream(data, batch_size=run.config.batch_size, shuffle=False, epochs=1) as stream:
        for batch in stream:
            real = np.asarray(batch.weights) > 0
            features.append(np.asarray(mean(batch.batch), np.float64)[real])
            labels.append(np.asarray(batch.labels)[real])
    return np.concatenate(features), np.concatenate(labels)


RUNNERS = {"ours": run_ours, "torch": run_torch, "frozen": run_frozen}


def main(args: Args) -> None:
    entries = json.loads(args.out.read_text())["entries"] if args.out.exists() else []
    for seed in args.seeds:
        for side in args.sides if seed == args.seeds[0] else [side for side in args.sides if side != "frozen"]:
            config = settings(args, seed)
            key = {"side": side, "seed": seed, "epochs": args.epochs, "model": args.model}
            if any(all(entry[name] == value for name, value in key.items()) for entry in entries):
                continue
            found = RUNNERS[side](config)
            entries.append({**key, **found, "load": os.getloadavg()[0], "date": datetime.date.today().isoformat()})
            print(side, seed, found["validation"], found["test"])
            content = {
                "command": "python benchmarks/finetune_accuracy.py",
                "machine": f"{processor()}, {os.cpu_count()} CPU cores, jax {jax.__version__}",
                "settings": {
                    k: v for k, v in settings(args, 0).to_dict().items() if k not in ("out", "seed", "epochs")
                },
                "entries": entries,
            }
            aside = args.out.with_suffix(".part")
            aside.write_text(json.dumps(content, indent=1) + "\n")
            aside.replace(args.out)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
