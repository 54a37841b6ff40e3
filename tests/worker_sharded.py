"""A few training steps on some devices, in one or several processes; process 0 prints the losses as JSON.

    python worker_sharded.py '{"mesh": "data=2,tensor=2", "devices": 4, "processes": 1, "process": 0, "port": 0}'

`devices` is the number in this process. Data come from the real stream, each process reading its share.
"""

import json
import sys

import jax

STEPS = 4


def main(options: dict) -> None:
    jax.config.update("jax_num_cpu_devices", options["devices"])
    from jaxsmooth.training.launch import join_processes

    coordinator = f"127.0.0.1:{options['port']}" if options["processes"] > 1 else ""
    join_processes(coordinator, options["processes"], options["process"])

    import dataclasses

    import numpy as np
    from helpers_training import PLAIN, TASKS, make_trainer, small_batch, small_model, to_arrays

    from jaxsmooth.training.sharding import constraints, make_mesh, on_host, place_batch, place_tree, reads_share
    from jaxsmooth.training.step import compile_step, init_state

    config = dataclasses.replace(PLAIN, hidden_dropout=0.1, attention_dropout=0.1, layer_decay=0.9)
    model = small_model("classification", np.float32)
    mesh = make_mesh(options["mesh"])
    trainer = make_trainer("classification", model, config, constrain=constraints(mesh))
    state = place_tree(init_state(model, trainer.optimiser, config), mesh)
    step, losses = compile_step(trainer), []
    for k in range(STEPS):
        whole = jax.tree.map(np.asarray, small_batch("classification", 16, seed=k, dtype=np.float32))
        if reads_share(mesh) and options["processes"] > 1:
            share = 16 // options["processes"]
            rows = slice(options["process"] * share, (options["process"] + 1) * share)
            whole = jax.tree.map(lambda leaf, rows=rows: leaf[rows], whole)
        state, metrics = step(state, place_batch(whole, mesh, rows=16))
        losses.append(float(metrics.loss))
    arrays = to_arrays(on_host(state.model))
    if options["process"] == 0:
        words = state.model.encoder.embeddings.word
        cut = {name: list(leaf.sharding.spec) for name, leaf in (("word", words),)}
        norm = float(sum((value.astype(np.float64) ** 2).sum() for value in arrays.values()))
        print(json.dumps({"losses": losses, "norm": norm, "kind": TASKS["classification"].kind, "cut": cut}))
    if options["processes"] > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
