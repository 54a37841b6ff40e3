"""The nearest escapes that a search found, replayed by the tests' own encoder: they are outside the certified balls."""

import json

import jax
import numpy as np
import pytest
from support import ROOT
from support.plain_blocks import Plain

import jaxsmooth
from jaxsmooth.theory.basin import certificate
from jaxsmooth.theory.equal_tokens import equal_token_walk, settle

RESULTS = ROOT / "experiments" / "results"
ROWS = {row["name"]: row for row in json.loads((RESULTS / "basin.json").read_text())["rows"]}
SENTENCES = json.loads((RESULTS / "basin_escapes.json").read_text())


def test_what_is_stored_is_what_the_table_says():
    for name, sentences in SENTENCES.items():
        known = {str(one["tokens"]): one["distance"] for one in ROWS[name]["escapes"]}
        for tokens, moves in sentences.items():
            assert len(moves) == int(tokens)
            assert np.linalg.norm(moves, axis=1).max() == pytest.approx(known[tokens], rel=1e-12)
            assert known[tokens] > ROWS[name]["radius"]


@pytest.mark.long
def test_the_escape_of_the_stack_of_minilm_ends_in_unequal_tokens():
    """100 passes from the stored sentence; from .99 of its moves both tokens come back to the row."""
    model, _ = jaxsmooth.load("minilm-l6")
    config = model.config
    blocks = [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k], np.float64), model.blocks) for k in range(6)]
    walk = equal_token_walk(blocks, float(config.eps), "gelu")
    (row,) = settle(walk, blocks[-1].norm_mlp.bias[None], steps=400, tolerance=1e-13).rows
    (moves,) = (np.array(each) for each in SENTENCES["minilm-l6 stack"].values())
    plain = Plain.of(model, None, None)

    def after(share: float) -> np.ndarray:
        x = (row + share * moves)[None]
        for _ in range(100):
            x = plain.once(x)
        return x[0]

    x = after(1.0)
    assert np.linalg.norm(x[0] - x[1]) > 5
    assert np.linalg.norm(after(0.99) - row, axis=1).max() < 1e-6
    assert np.linalg.norm(moves, axis=1).max() < 100 * ROWS["minilm-l6 stack"]["radius"]


@pytest.mark.long
def test_the_escape_of_layer_7_of_e5_ends_in_equal_tokens_at_another_row():
    """200 applications from the stored two tokens; from .95 of their moves both come back to the row."""
    model, _ = jaxsmooth.load("e5-small-q4")
    plain = Plain.of(model, 7, None)
    row = np.asarray(model.blocks.norm_mlp.bias[6], np.float64)[None, None]
    for _ in range(400):
        row = plain.once(row)
    moves = np.array(SENTENCES["e5-small-q4 layer 7"]["2"])

    def after(share: float) -> np.ndarray:
        x = row + share * moves
        for _ in range(200):
            x = plain.once(x)
        return x[0]

    x = after(1.0)
    assert np.linalg.norm(x[0] - x[1]) < 1e-9
    assert np.linalg.norm(x[0] - row[0, 0]) > 10
    assert np.linalg.norm(after(0.95) - row[0], axis=1).max() < 1e-6
    assert np.linalg.norm(moves, axis=1).max() < 100 * ROWS["e5-small-q4 layer 7"]["radius"]


@pytest.mark.long
def test_equal_tokens_settle_in_a_cycle_of_five_passes_in_the_stack_of_e5():
    """Slowly, by .914 a pass: 200 passes leave 3e-8, and it was said to settle nowhere."""
    model, _ = jaxsmooth.load("e5-small-q4")
    blocks, front = certificate._checked(model, None, None, (0.5, 0.5))
    orbit = certificate._orbit(blocks, np.asarray(front.norm_mlp.bias), float(model.config.eps), None)
    assert orbit.period == 5
    assert len(orbit.rows) == len(orbit.blocks) == 5 * 12
