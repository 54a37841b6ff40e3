"""`diagnose`, `verify` and `compare` of a small model on as many simulated devices as asked; prints numbers as JSON.

python worker_devices.py 8 diagnose verify compare

`diagnose-on-mesh` and the like do the same of a model that lies on a mesh of Explicit axes, its parameters cut;
`meshes:Explicit-set-tensor,Auto-free-whole:bert` gives the differences of support/meshes.py.
"""

import json
import sys

import jax

TEXTS = ["A film.", "Dull.", "So it is.", "No.", "The sea.", "It is.", "Why not?"]
TOKENS_PER_BATCH = 6 * 16
"""Batches of six rows, which eight devices do not divide; the second batch has one sentence, and fillers."""


def numbers(commands: list[str]) -> dict:
    """What the commands find, by name."""
    import numpy as np

    import jaxsmooth
    from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
    from support.models import random_model

    config = jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, width=16, layers=2, heads=2, mlp_width=32, max_length=16)
    model, tokenizer = random_model(config, dtype=np.float32), Tokenizer.tiny(config)
    options = {"tokens_per_batch": TOKENS_PER_BATCH}
    spreads, verdicts, differences = {}, {}, {}
    if any(command.endswith("-on-mesh") for command in commands):
        from support.meshes import laid_out

        commands = [command.removesuffix("-on-mesh") for command in commands]
        model = laid_out(model, jax.make_mesh((4, 2), ("data", "tensor")), tensor=True)
    for command in commands:
        if command.startswith("meshes:"):
            from support import meshes

            _, kinds, family = command.split(":")
            with jax.enable_x64(True):
                differences |= meshes.differences(family, kinds.replace("-", " ").split(","))
    if "diagnose" in commands:
        found = jaxsmooth.diagnose(model, tokenizer, TEXTS, **options)
        for name in ("cosine_similarity", "relative_distance", "effective_rank", "mixing_rate", "std_attn"):
            spreads[name] = getattr(found, name)
        spreads |= {f"rates/{name}": spread for name, spread in found.rates.items()}
    if "compare" in commands:
        for entry in jaxsmooth.compare(model, tokenizer, TEXTS, "contranorm", **options).entries:
            spreads |= {
                f"{entry.label}/distance": entry.relative_distance,
                f"{entry.label}/rate": entry.rates["actual"],
            }
    if "verify" in commands:
        checks = jaxsmooth.verify(model, tokenizer, TEXTS, **options).checks
        verdicts = {f"{each.theorem}/{each.layer}/{each.head}": each.verdict for each in checks}
    values = {
        f"{name}/{part}": np.asarray(getattr(spread, part), float).ravel().tolist()
        for name, spread in spreads.items()
        for part in ("mean", "max", "count")
    }
    return {"devices": jax.local_device_count(), "values": values, "verdicts": verdicts, "differences": differences}


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    print(json.dumps(numbers(sys.argv[2:])))
