"""A few training steps on some devices, in one or several processes; process 0 prints each run's result as JSON.

    python -m support.worker_sharded '{"runs": [["data=2,tensor=2", 4]], "devices": 4, "processes": 1, "process": 0,
                                       "port": 0, "folder": ""}'

`devices` is the number in this process; a run is a mesh, over how many of all devices it goes, and its settings, if
any, among them "kernel", of attention. With a folder for checkpoints, the runs after the first are stages of one run:
each trains a few steps, saves, and the next restores that onto its own mesh and goes on.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

STEPS, STAGE = 6, 2


def main(options: dict) -> None:
    jax.config.update("jax_num_cpu_devices", options["devices"])
    from jaxsmooth.training.sharding import join_processes

    coordinator = f"127.0.0.1:{options['port']}" if options["processes"] > 1 else ""
    join_processes(coordinator, options["processes"], options["process"])

    results, first = [], 0
    for number, (mesh, count, *settings) in enumerate(options["runs"]):
        stage = bool(options["folder"]) and number > 0
        last = first + STAGE if stage else STEPS
        folder = options["folder"] if stage else ""
        results.append(train(mesh, count, range(first if stage else 0, last), folder, **dict(*settings)))
        first = last if stage else 0
    if options["process"] == 0:
        print(json.dumps(results))
    if options["processes"] > 1:
        jax.distributed.shutdown()


def train(text: str, count: int, steps: range, folder: str, kernel: str = "", **settings: Any) -> dict[str, Any]:
    """Losses of the steps, from the start or from the folder's checkpoint of the first of them."""
    from jaxsmooth.bert.kernels import Kernel
    from jaxsmooth.training import sharding
    from jaxsmooth.training.checkpointing import Checkpoints
    from jaxsmooth.training.sharding import make_mesh, on_host, place_batch, place_tree, tree_shardings
    from jaxsmooth.training.step import compile_step, init_state
    from support.training import PLAIN, make_trainer, small_model, to_arrays

    rates = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    config = dataclasses.replace(PLAIN, **{**rates, "layer_decay": 0.9, **settings})
    model = small_model("classification", np.float32)
    mesh = make_mesh(text, jax.devices()[:count])
    asked = Kernel(kernel, required=True, interpret=True) if kernel else "explicit"
    functions = {"constrain": sharding.constraints(mesh), "kernel": sharding.attention_kernel(asked, mesh)}
    functions["place"] = sharding.block_placement(mesh)
    trainer = make_trainer("classification", model, config, **functions)
    start = jax.jit(lambda model: init_state(model, trainer.optimiser, config))
    if steps.start:
        shapes = jax.eval_shape(start, model)
        where = tree_shardings(shapes, mesh)
        like = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, where)
        with Checkpoints(Path(folder)) as checkpoints:
            state = checkpoints.restore(like, step=steps.start).state
    else:
        state = place_tree(start(model), mesh)
    step, losses = compile_step(trainer), []
    for number in steps:
        state, metrics = step(state, place_batch(share_of(mesh, number), mesh, rows=16))
        losses.append(float(metrics.loss))
    if folder:
        with Checkpoints(Path(folder), keep=9) as checkpoints:
            checkpoints.save(steps.stop, state, {})
    arrays = to_arrays(on_host(state.model))
    norm = float(sum((value.astype(np.float64) ** 2).sum() for value in arrays.values()))
    return {"losses": losses, "norm": norm, "word": list(state.model.encoder.embeddings.word.sharding.spec)}


def share_of(mesh: Any, number: int) -> Any:
    """This process's rows of a step's batch."""
    from jaxsmooth.training.sharding import reads_share
    from support.training import small_batch

    whole = jax.tree.map(np.asarray, small_batch("classification", 16, seed=number, dtype=np.float32))
    if jax.process_count() == 1 or not reads_share(mesh):
        return whole
    size = 16 // jax.process_count()
    return jax.tree.map(lambda leaf: leaf[jax.process_index() * size :][:size], whole)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
