"""A small encoder and two batches, run with edits by the library and, one sentence at a time, by numpy."""

import numpy as np

import jaxsmooth
from support import reference
from support.edits import edited_block
from support.models import CONFIG, hugging_face, random_batch, random_model

MODEL = random_model()
LENGTHS = (7, 3)
BATCH, SOURCE = random_batch(LENGTHS), random_batch(LENGTHS, seed=3)
WEIGHTS = reference.Weights(*hugging_face(MODEL))


def hidden_of(trace):
    return trace.hidden


def run(edits, batch=BATCH, model=MODEL) -> np.ndarray:
    """Every block's output, [L B T D]."""
    return np.asarray(jaxsmooth.encode(model, batch, edits=edits, collect=hidden_of)[1])


def in_numpy(b: int, edit, batch=BATCH, length=None) -> np.ndarray:
    """Every block's output of sentence b with `edit(layer, site, value)`, [L n D]."""
    x = np.asarray(jaxsmooth.embed(MODEL, batch))[b, : length or LENGTHS[b]]
    kept = []
    for layer in range(CONFIG.layers):
        x = edited_block(WEIGHTS, layer, x, lambda site, value, layer=layer: edit(layer, site, value))["hidden"]
        kept.append(x)
    return np.stack(kept)
