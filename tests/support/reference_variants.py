"""An encoder of any norm and placement in plain numpy, float64, one sentence at a time: the yardstick of variants.

Written from the papers' formulas, with loops over heads and a function per sub-layer; it shares no code and no
layout with the library, whose parameters it takes as a dictionary of Hugging Face's tensors (BERT's names, and
`gate`, `norm_*_out` and `final_norm` for what BERT lacks).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / math.sqrt(2))),
    "relu": lambda x: np.where(x > 0, x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


class Variant(NamedTuple):
    """What distinguishes a block from BERT's. `given_std` replaces every standard deviation of the blocks."""

    norm: str = "layernorm"
    placement: str = "post"
    skip: float = 1.0
    branch: float = 1.0
    eps: float = 1e-12
    activation: str = "gelu"
    heads: int = 1
    first_norm: bool = True
    given_std: float | None = None


def normed(v: Variant, x: np.ndarray, gain: np.ndarray, shift: np.ndarray | None, *, edited: bool) -> np.ndarray:
    """One token after the other."""
    out = np.empty_like(x)
    for t, row in enumerate(x):
        centre = row.mean() if v.norm == "layernorm" else 0.0
        if edited and v.given_std is not None:
            std = v.given_std
        elif v.norm == "none":
            std = 1.0
        else:
            std = math.sqrt(((row - centre) ** 2).mean() + v.eps)
        out[t] = gain * (row - centre) / std + (0 if shift is None else shift)
    return out


def attention(w: dict[str, np.ndarray], v: Variant, x: np.ndarray) -> np.ndarray:
    """Multi-head self-attention of all tokens, with its output projection."""
    q, k, u = (x @ w[f"{name}.weight"].T + w[f"{name}.bias"] for name in ("query", "key", "value"))
    width = x.shape[1] // v.heads
    joined = []
    for h in range(v.heads):
        own = slice(h * width, (h + 1) * width)
        scores = q[:, own] @ k[:, own].T / math.sqrt(width)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        joined.append(weights / weights.sum(axis=1, keepdims=True) @ u[:, own])
    return np.concatenate(joined, axis=1) @ w["output.weight"].T + w["output.bias"]


def mlp(w: dict[str, np.ndarray], v: Variant, x: np.ndarray) -> np.ndarray:
    """The MLP, gated where there is a gate."""
    wide = ACTIVATIONS[v.activation](x @ w["up.weight"].T + w["up.bias"])
    if "gate.weight" in w:
        wide = wide * (x @ w["gate.weight"].T + w["gate.bias"])
    return wide @ w["down.weight"].T + w["down.bias"]


def sublayer(w: dict, v: Variant, x: np.ndarray, f: Callable, site: str, *, skip_norm: bool = False) -> np.ndarray:
    """One sub-layer in its residual sum."""

    def norm(y: np.ndarray, name: str, *, edited: bool) -> np.ndarray:
        return normed(v, y, w[f"{name}.scale"], w.get(f"{name}.bias"), edited=edited)

    if v.placement == "post":
        return norm(v.skip * x + v.branch * f(w, v, x), f"norm_{site}", edited=True)
    read = x if skip_norm else norm(x, f"norm_{site}", edited=True)
    added = f(w, v, read)
    if v.placement == "sandwich":
        added = norm(added, f"norm_{site}_out", edited=False)
    return v.skip * x + v.branch * added


def forward(embedded: np.ndarray, layers: list[dict], v: Variant) -> list[np.ndarray]:
    """The outputs of all blocks for one sentence, [T D] each, the embedding first."""
    states = [embedded]
    for layer, w in enumerate(layers):
        attended = sublayer(w, v, states[-1], attention, "attn", skip_norm=layer == 0 and not v.first_norm)
        states.append(sublayer(w, v, attended, mlp, "mlp"))
    return states
