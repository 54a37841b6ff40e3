"""Awkward inputs of every public function of `theory`: few or no tokens, equal ones, padding, zeros, odd scales."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

from jaxsmooth import theory
from support import public

# Which tokens of n are real: all, with padding in front and behind, one, none.
MASKS: dict[str, Callable[[int], np.ndarray]] = {
    "full": lambda n: np.ones(n, bool),
    "padded": lambda n: (np.arange(n) > 0) & (np.arange(n) < n - 1),
    "one": lambda n: np.arange(n) == n // 2,
    "none": lambda n: np.zeros(n, bool),
}
HIDDEN = ("generic", "consensus", "zero", "one zero token", "two tokens")
ATTENTION = ("softmax", "uniform", "identity", "one-hot", "causal", "two classes", "nearly one-hot")
SCALES = (1.0, 1e-12, 1e12, 1e-30, 1e30)
GARBAGE = 1e6

TOKEN_KEYS = {
    *("hidden", "before", "after", "left", "right", "mixed", "other", "matrix", "first", "first_value", "deviation"),
    *("query", "key", "deviations", "logits", "patterns"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is awkward about an input."""

    mask: str
    hidden: str
    attention: str
    scale: float
    seed: int

    @property
    def real(self) -> np.ndarray:
        return MASKS[self.mask](tokens())


def tokens() -> int:
    """How many, padding included: of `public.SIZES` as it is now."""
    return public.SIZES["T"]


def cases() -> st.SearchStrategy[Case]:
    """Of any kind."""
    kinds = (st.sampled_from(tuple(MASKS)), st.sampled_from(HIDDEN), st.sampled_from(ATTENTION))
    return st.builds(Case, *kinds, st.sampled_from(SCALES), st.integers(0, 9))


def functions() -> dict[str, Callable[..., Any]]:
    """All that `theory` exports, by name, but the decorator of a theorem of one's own."""
    named = {name: value for name, value in vars(theory).items() if inspect.isfunction(value) and name[0] != "_"}
    return {name: value for name, value in named.items() if name != "own_theorem"}


def hidden_of(case: Case, rng: np.random.Generator, shape: tuple[int, ...], garbage: float) -> np.ndarray:
    """[... T D], of the case's kind on real tokens."""
    x = rng.standard_normal(shape)
    if case.hidden == "consensus":
        x[..., :, :] = x[..., :1, :]
    if case.hidden == "zero":
        x[:] = 0
    if case.hidden == "one zero token":
        x[..., tokens() // 2, :] = 0
    if case.hidden == "two tokens":
        x[..., ::2, :] = x[..., :1, :]
    x = case.scale * x
    x[..., ~case.real, :] = garbage
    return x


def attention_of(case: Case, rng: np.random.Generator, shape: tuple[int, ...], garbage: float) -> np.ndarray:
    """[... T S], rows of real tokens summing to 1 over real keys, padded keys of weight 0."""
    real = np.flatnonzero(case.real)
    logits = rng.standard_normal((*shape[:-2], len(real), len(real)))
    if case.attention == "nearly one-hot":
        logits = 30 * logits
    if case.attention == "causal":
        logits = np.where(np.tri(len(real), dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-1e300))
    if case.attention == "uniform":
        weights[:] = 1
    if case.attention in ("identity", "one-hot", "two classes"):
        chosen = {"identity": np.arange(len(real)), "one-hot": np.arange(len(real)) // 2}
        weights[:] = np.eye(len(real))[chosen.get(case.attention, np.arange(len(real)) % 2)]
    found = np.zeros(shape)
    found[..., ~case.real, :] = garbage
    found[..., real[:, None], real] = weights / weights.sum(axis=-1, keepdims=True)
    return found


def softmax_of(logits: np.ndarray, case: Case) -> np.ndarray:
    weights = np.where(case.real, np.exp(logits - logits.max(axis=-1, keepdims=True)), 0)
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)


def _attended(given: dict, case: Case) -> dict:
    """Softmax attention of one head of kernels 1, without values, and what it makes of X."""
    x = np.where(case.real[:, None], given["hidden"], 0).astype(np.float64)
    attn = softmax_of(x @ x.T, case)[None]
    found = {"attn": attn, "couplings": np.ones(1)}
    if "mixed" in given:
        found |= {"mixed": attn[0] @ x, "mixers": np.ones(1)}
    return _like(found, given["hidden"])


def _like(found: dict, array: np.ndarray) -> dict:
    return {key: value.astype(array.dtype) for key, value in found.items()}


def _on_sphere(given: dict, case: Case) -> dict:
    """Unit tokens, and what a layer of uniform attention without residual, or no time at all, makes of them."""
    x = given["before"].astype(np.float64)
    x[case.real] /= np.maximum(np.linalg.norm(x[case.real], axis=-1, keepdims=True), 1e-300)
    after = x.copy()
    if "time" not in given:
        mean = x[case.real].sum(axis=0)
        after[case.real] = mean / max(np.linalg.norm(mean), 1e-300)
    still = {"time": 0.0} if "time" in given else {}
    return _like({"before": x, "after": after}, given["before"]) | {"sharpness": 0.0} | still


def _graph_attention(given: dict, case: Case) -> dict:
    x = np.where(case.real[:, None], given["before"], 0).astype(np.float64)
    attn = np.where(case.real[:, None], given["attn"], 0)
    return _like({"after": np.maximum(attn @ x @ given["weight"], 0)}, given["before"])


def _state(given: dict, case: Case) -> dict:
    """Of what a block did: fewer real tokens, and equal ones."""
    state = given["state"]
    mask = state.mask & np.resize(case.real, state.mask.shape[-1])
    same = case.hidden in ("consensus", "zero")
    rows = [leaf[:, :1] + 0 * leaf if same else leaf for leaf in (state.input, state.pre_attn)]
    return {"state": state._replace(mask=mask, input=rows[0], pre_attn=rows[1])}


def _region(given: dict, case: Case) -> dict:
    region = given["region"]
    return {"region": region._replace(mask=region.mask & np.resize(case.real, region.mask.shape[-1]))}


def _operator(given: dict, case: Case) -> dict:
    operator = given["operator"]
    attn = attention_of(case, np.random.default_rng(case.seed), operator.matrix.shape, GARBAGE)
    return {"operator": theory.Dense(attn.astype(operator.matrix.dtype), case.real)}


def _layers(given: dict, case: Case) -> dict:
    """Of F_l(X) = K_l X."""
    x = np.where(case.real[:, None], given["before"], 0).astype(np.float64)
    factors = given["constants"].astype(np.float64)
    return _like({"at_start": factors[:, None, None] * x, "after": np.prod(1 + factors) * x}, given["before"])


_limit = jax.jit(theory.chain_limit)

# Arguments that a function takes to belong together.
RELATED: dict[str, Callable[[dict, Case], dict]] = {
    **dict.fromkeys(("apriori_mixing_rate", "tanh_collapse", "cubic_collapse"), _attended),
    **dict.fromkeys(
        ("oscillation_ergodicity", "attention_dilution"),
        lambda given, case: _like({"attn": softmax_of(given["logits"].astype(np.float64), case)}, given["logits"]),
    ),
    **dict.fromkeys(("geshkovski2023_clustering", "geshkovski2023_discrete_step", "chen2025_clustering"), _on_sphere),
    "wu2023_gat_collapse": _graph_attention,
    "converge_symmetric": lambda given, case: _like(
        {"adjacency": np.exp(np.minimum(given["adjacency"] + given["adjacency"].T, 30.0))}, given["adjacency"]
    ),
    "alman2025_one_layer": _layers,
    # The second eigenvalue is at most 1.
    "reversible_contraction": lambda given, case: {"second": np.ones((), given["attn"].dtype)},
    "subdominant": lambda given, case: {"limit": _limit(given["attn"], given["mask"])},
    "dovonon2024_unification_rate": lambda given, case: _like(
        {"attn_eigenvalues": np.r_[1.0, given["attn_eigenvalues"][1:]]}, given["attn_eigenvalues"]
    ),
    **dict.fromkeys(
        (
            *("attention_stretch", "block_rate", "contraction_threshold", "data_rate", "operator_rate"),
            *("pairwise_rate", "pre_norm_block_rate", "pre_norm_rate", "refined_rate", "std_product"),
        ),
        _state,
    ),
    **dict.fromkeys(("secant_box_rate", "slope_box_rate", "inside"), _region),
    **dict.fromkeys(("arnoldi", "iterate", "iterate_until", "operator_norm"), _operator),
}


def arguments(name: str, function: Callable[..., Any], case: Case, dtype: Any, garbage: float = GARBAGE) -> dict:
    """Keyword arguments of one case, numpy's; related ones in the relation that the function asks for."""
    made = public.arguments(name, function, dtype)
    given = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, made)
    rng = np.random.default_rng(case.seed)
    parameters = inspect.signature(function).parameters
    for key in given:
        dims = getattr(parameters[key].annotation, "dim_str", "").split()
        shape = given[key].shape if isinstance(given[key], np.ndarray) else ()
        if key in ("mask", "allowed") and shape == (tokens(),):
            given[key] = case.real
        elif key in ("mask",) and dims and shape[-1:] == (tokens(),):
            given[key] = np.broadcast_to(case.real, shape)
        elif key in ("graph", "allowed") and shape[-2:] == (tokens(), tokens()):
            given[key] = np.broadcast_to(case.real[:, None] & case.real, shape)
        elif key in ("attn", "matrices") and shape[-2:] == (tokens(), tokens()):
            given[key] = attention_of(case, rng, shape, garbage).astype(dtype)
        elif key in TOKEN_KEYS and len(shape) > 1 and shape[-2] == tokens() and dims[-2:-1] == ["T"]:
            given[key] = hidden_of(case, rng, shape, garbage).astype(dtype)
    given |= RELATED.get(name, lambda given, case: {})(given, case)
    return given
