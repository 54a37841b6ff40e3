"""A training step and the forward pass of MiniLM against its peers, interleaved in one process.

    python benchmarks/train_step.py                   # needs the bench extra; some minutes on 2 idle cores
    python benchmarks/train_step.py --threads 1       # on a busy machine: processor time of one thread

Both sides: BertForSequenceClassification, float32, 32 sentences of 64 tokens, dropout as given, gradients clipped,
AdamW with a schedule; and the forward pass alone, without dropout. Peers: torch eager, torch.compile (inductor,
attention as its own kernel), for the forward pass ONNX Runtime too. In each round the rate of a matrix product of the
model's largest shape is taken, of XLA's and of torch's, whichever is faster: what the model's products would take at
that rate is the physical limit. Reported are the median over rounds, and the median of each round's ratio. Wall time
means nothing while other programs hold the cores (torch's threads then wait for each other); processor time of one
thread does, and the result says which of the two it is. Results go to benchmarks/results/train_step.json, one entry
per setting and machine, and with those of the other benchmarks to peers.md (peers_page.py).
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from machine import processor
from peers_page import write_page

from jaxsmooth.heap import keep_freed

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    rounds: int = 7
    """Timed rounds of each side, after one warm-up."""
    threads: int = 2
    """Threads of each side; 1 measures processor time instead of wall time."""
    dropout: float = 0.1
    """Rate of all dropouts; 0 leaves them out."""
    rows: int = 32
    """Sentences."""
    length: int = 64
    """Tokens of each."""
    keep: bool = True
    """Whether the process keeps freed memory, as `jaxsmooth finetune` does: of all sides."""
    out: Path = HERE / "results" / "train_step.json"
    """Where the results go."""


PEERS = {"step": ("torch", "torch.compile"), "forward": ("torch", "torch.compile", "onnxruntime")}
PRODUCT = 2048, 384, 1536  # rows, columns in and out of the largest product


def make_sides(args: Args) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """One function per part and side, which returns when its work is done; and FLOPs of each part's products."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from bare_products import bare_sides
    from train_torch import inputs, onnx_session, torch_run

    import jaxsmooth
    from jaxsmooth.assets.fetch import fetch
    from jaxsmooth.training.accelerators import forward_flops
    from jaxsmooth.training.config import FinetuneConfig
    from jaxsmooth.training.data.tasks import Task, TrainBatch
    from jaxsmooth.training.model import init_task_model
    from jaxsmooth.training.optimiser import learning_rate, make_optimiser
    from jaxsmooth.training.step import Trainer, compile_step, init_state

    torch.set_num_threads(args.threads)
    task = Task("benchmark", "classification", "accuracy", "random tokens", "none", classes=("a", "b"))
    rate = args.dropout
    config = FinetuneConfig(hidden_dropout=rate, attention_dropout=rate, head_dropout=rate)
    encoder, _ = jaxsmooth.load("minilm-l6")
    model = init_task_model(encoder, task, jax.random.key(0))
    rng, shape = np.random.default_rng(0), (args.rows, args.length)
    tokens = rng.integers(1000, 30000, shape).astype(np.int32)
    batch = jaxsmooth.Batch(tokens, np.zeros(shape, np.int32), np.ones(shape, bool))
    labels, rows = rng.integers(0, 2, args.rows).astype(np.int32), np.arange(args.rows, dtype=np.int32)
    data = TrainBatch(batch, labels, np.ones(args.rows, np.float32), rows)
    folder = Path(fetch("minilm-l6"))
    eager = torch_run(folder, model, config, 1000)
    compiled = torch_run(folder, model, config, 1000, attention="sdpa")
    session = onnx_session(compiled.model, data, args.threads)
    compiled.model.compile()
    schedule = learning_rate(config, 1000)
    # as `finetune` makes it on one CPU
    trainer = Trainer(task, config, make_optimiser(config, model, 1000), schedule, unroll=True)
    step, forward = compile_step(trainer), jax.jit(trainer.logits)
    state = [init_state(jax.tree.map(jnp.copy, model), trainer.optimiser, config)]

    def ours() -> None:
        state[0], _ = jax.block_until_ready(step(state[0], data))

    def logits(run: Any) -> np.ndarray:
        run.model.eval()
        with torch.no_grad():
            found = run.model(**inputs(data)).logits.numpy()
        run.model.train()
        return found

    sides: dict[str, Callable[[], Any]] = {
        "forward ours": lambda: jax.block_until_ready(forward(model, data)),
        "forward torch": lambda: logits(eager),
        "forward torch.compile": lambda: logits(compiled),
        "forward onnxruntime": lambda: session.run(None, {n: x.numpy() for n, x in inputs(data).items()})[0],
    }
    for name, run in sides.items():  # all of them compute the same
        np.testing.assert_allclose(np.asarray(run()), np.asarray(sides["forward ours"]()), atol=1e-4, err_msg=name)
    m, k, n = PRODUCT
    left, right = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    on_device = jnp.asarray(left), jnp.asarray(right)
    tensors, product = (torch.tensor(left), torch.tensor(right)), jax.jit(jnp.matmul)
    flops = float(forward_flops(encoder.config, args.rows, args.length))
    return {
        **bare_sides(encoder.config, args.rows, args.length),
        "step ours": ours,
        "step torch": lambda: eager.step(data),
        "step torch.compile": lambda: compiled.step(data),
        **sides,
        "product ours": lambda: [jax.block_until_ready(product(*on_device)) for _ in range(REPEATS)],
        "product torch": lambda: [torch.matmul(*tensors) for _ in range(REPEATS)],
    }, {"forward": flops, "step": 3 * flops, "product": 2.0 * m * k * n * REPEATS}


REPEATS = 20


def main(args: Args) -> None:
    if args.threads == 1:
        # One thread for XLA as well; set before jax is imported.
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["OMP_NUM_THREADS"] = "1"
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if args.keep:
        keep_freed()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    sides, flops = make_sides(args)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(args.rounds + 1):
        for name, run in sides.items():
            start = clock()
            run()
            if number:
                times[name].append(clock() - start)
    rate = flops["product"] / min(statistics.median(times[f"product {side}"]) for side in ("ours", "torch"))
    ratios = {
        part: {
            peer: [a / b for a, b in zip(times[f"{part} ours"], times[f"{part} {peer}"], strict=True)] for peer in peers
        }
        for part, peers in PEERS.items()
    }
    entry = {
        "setting": {name: getattr(args, name) for name in ("threads", "dropout", "rows", "length", "rounds", "keep")},
        "clock": "processor time, one thread" if args.threads == 1 else "wall time",
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "ratio": {p: {peer: statistics.median(each) for peer, each in peers.items()} for p, peers in ratios.items()},
        "ratios": ratios,
        "products": {"gflops": rate / 1e9, "limit": {part: flops[part] / rate for part in PEERS}},
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch", "onnxruntime")},
        "machine": f"{processor()}, {os.cpu_count()} CPU cores",
        "load": os.getloadavg()[0],
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps({name: entry[name] for name in ("setting", "clock", "seconds", "ratio", "load")}, indent=1))
    before = json.loads(args.out.read_text()) if args.out.exists() else []
    kept = [old for old in before if (old["setting"], old["machine"]) != (entry["setting"], entry["machine"])]
    aside = args.out.with_suffix(".part")
    aside.write_text(json.dumps([*kept, entry], indent=1) + "\n")
    aside.replace(args.out)
    write_page(args.out.parent)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
