"""Blocks whose hypotheses are known exactly, and the verdicts that `verify` gives on them."""

import numpy as np

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.studies.statements.hypotheses import HypothesisStage
from jaxsmooth.studies.verify_stages import HostStage, Parameters
from jaxsmooth.theory import block_of
from jaxsmooth.theory.certify.enclosed_parameter_norms import enclosed_parameter_norms
from jaxsmooth.theory.hypotheses.asked import ASKED
from jaxsmooth.theory.theorems.exact_block import Architecture, Observation

WIDTH = 4
PATTERN = np.array([1.0, -1.0, 1.0, -1.0])  # mean 0, std 1
CONFIG = EncoderConfig(vocab=9, width=WIDTH, layers=1, heads=1, mlp_width=WIDTH, max_length=99, activation="relu")


def bare_block(gain: float = 1.0, shift: float = 0.0, mixer: float = 0.0):
    """No MLP; attention that adds `mixer` times the mean it takes; LN_2 has one gain, and a shift along the pattern."""
    eye, one = np.eye(WIDTH), np.ones(WIDTH)
    shifts = {"bias_mlp": shift * PATTERN}
    return block_of(mixer * eye[:, None], eye[None], one, 0 * eye, 0 * eye, gain * one, **shifts)


def parameters(block, activation: str = "relu", eps: float = 0.0) -> Parameters:
    return Parameters([block], enclosed_parameter_norms([block]), Architecture(eps, activation))


def checks(block, tokens, attn=None, names=tuple(ASKED), *, padding: int = 0, activation="relu", config=CONFIG):
    """What `verify` decides on one sentence, [T D], as (hypothesis, layer, head) -> check; padding holds junk."""
    count = len(tokens)
    attn = np.full((1, count, count), 1 / count) if attn is None else attn
    hidden = np.pad(tokens, ((0, padding), (0, 0)), constant_values=7.0)
    heads = np.pad(attn, ((0, 0), (0, padding), (0, padding)), constant_values=3.0)
    wide = np.zeros((count + padding, block.up.kernel.shape[1]))
    rows = [hidden, heads, hidden, hidden, hidden, wide, wide, hidden, hidden]
    seen = Observation(*(row[None, None] for row in rows))
    known = parameters(block, activation)
    stage = HypothesisStage(known, config, names)
    first = HostStage(known, stage.of_blocks)(seen, [count])
    stage.check(seen, [count], first, np.array([0]))
    return {(c.hypothesis, c.layer, c.head): c for c in stage.tally.checks()}


def scaled_patterns(stds) -> np.ndarray:
    """Tokens of mean 0 with exactly these stds, in different directions: signs that balance, times a number."""
    signs = np.array([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float64)
    return np.array([std * signs[k % 3] for k, std in enumerate(stds)])
