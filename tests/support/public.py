"""Every public function of arrays with arguments that suit it: made from its annotations, or from the table here."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxsmooth
from jaxsmooth import interventions, metrics, mitigations, theory
from jaxsmooth.theory.block.linearisation import LocalLaw

SIZES = {"T": 4, "S": 4, "D": 5, "E": 5, "N": 2, "H": 3, "K": 2, "M": 2, "L": 2, "B": 2, "rows": 4, "columns": 5}
ROOMS = (metrics, theory, mitigations, interventions)

HOST = {
    # Those of numpy, in float64 on the host, and those that return no array.
    *("residual_eigenvalues", "residual_fate", "residual_spectrum_rate", "neighbourhood_rate", "ritz_values"),
    *("ball_rate", "inner_radius"),
    *("secant_range", "secant_slope", "slope_range", "group_inverse", "meyer1994_lower", "meyer1994_upper"),
    *("hypothesis_for_every_input", "stored_for_every_input"),
    *("kim2021_witness", "closed_classes", "describe_methods", "parse_remedies", "combine", "make_definite"),
    *("clopper_pearson1934_limits", "wilks1941_limit", "vovk2005_limit", "paired_difference"),
    *("spectral_radius", "open_hemisphere"),
    *("activation_kernel", "activation_slope", "cowsik2024_step", "cowsik2024_exponents", "cowsik2024_powers"),
    *("cowsik2024_critical_value", "zhang2026_smoothing", "li2026_principal_subspace", "clauset2009_power_law"),
    *("bruno2024_growth", "bruno2024_degree"),
    *("own_theorem", "own_remedy", "chosen_remedies"),
    *("has_sink", "rooted_radius", "krylov_radius", "certified_basin"),
    *("block_of", "rusch2023_vanishes_at_consensus", "replace", "scale", "restrict", "patch", "patch_map", "record"),
}


def functions() -> dict[str, Callable[..., Any]]:
    """By name, the rooms' own functions of arrays; those given twice, once."""
    found: dict[str, Callable[..., Any]] = {}
    for room in ROOMS:
        for name, value in vars(room).items():
            own = inspect.isfunction(value) and value.__module__.startswith("jaxsmooth.")
            helper = own and room is metrics and value.__module__ != metrics.__name__
            if own and not helper and not name.startswith("_") and name not in HOST and value not in found.values():
                found[name] = value
    return found


def arguments(name: str, function: Callable[..., Any], dtype: Any = jnp.float32) -> dict[str, Any]:
    """Keyword arguments of small shapes, in which `function` says something."""
    rng = np.random.default_rng(0)
    special = SPECIAL.get(name, lambda rng: {})(rng)
    made = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if key in special or parameter.default is parameter.empty:
            made[key] = special[key] if key in special else _example(rng, key, parameter.annotation)
    return jax.tree.map(lambda leaf: _as(leaf, dtype), made)


def is_array_of_reals(annotation: Any) -> bool:
    return any("float32" in getattr(kind, "dtypes", ()) for kind in (get_args(annotation) or (annotation,)))


def shape_of(annotation: Any) -> tuple[int, ...]:
    """By the names of the axes; any number of axes are none."""
    kind = next(kind for kind in (get_args(annotation) or (annotation,)) if hasattr(kind, "dim_str"))
    dims = [dim for dim in kind.dim_str.split() if not dim.startswith(("*", "..."))]
    return tuple(SIZES[dim] if dim in SIZES else int(dim) for dim in dims)


def _as(leaf: Any, dtype: Any) -> Any:
    real = isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, dtype) if real else leaf


def _example(rng: np.random.Generator, key: str, annotation: Any) -> Any:
    if key in STRUCTS:
        return STRUCTS[key]()
    if key in ("mask", "allowed", "graph"):
        shape = shape_of(annotation) or (SIZES["T"],)
        return jnp.ones(shape, bool)
    if key in PLAIN:
        return PLAIN[key]
    assert is_array_of_reals(annotation) or "int32" in getattr(annotation, "dtypes", ()), key
    shape = shape_of(annotation)
    if not is_array_of_reals(annotation):
        return jnp.ones(shape, jnp.int32)
    if key in ("attn", "matrices"):
        return jax.nn.softmax(jnp.asarray(rng.standard_normal(shape), jnp.float32), axis=-1)
    values = rng.standard_normal(shape)
    return jnp.asarray(np.abs(values) + 0.1 if key in POSITIVE else values, jnp.float32)


POSITIVE = {
    *("std", "std_attn", "std_mlp", "values", "measures", "degrees", "precision", "distance", "mean_norm", "growth"),
    *("coefficient", "start", "norm", "mixing_rate", "mixing_rates", "std_products", "couplings", "mixers"),
    *("head_norms", "scale", "largest_logit", "rate", "radius", "tokens", "least_weight", "least_u", "least_v"),
    *("value_norm", "interaction_norm", "logit_std", "log_rate", "strength", "share", "sharpness", "time"),
    *("tangent", "size", "layers", "constants", "beta"),
    *("separation", "temperature"),
}
PLAIN: dict[str, Any] = {
    **dict.fromkeys(("lipschitz",), 1.5),
    **dict.fromkeys(("eps", "tolerance"), 1e-5),
    **dict.fromkeys(("head_width", "depth", "order", "steps", "length"), 2),
    "activation": "gelu",
    "placement": "pre",
    "most": 3,
    "reference": 8.0,
}


@functools.cache
def _block() -> Any:
    model, _ = jaxsmooth.load("tiny")
    return jax.tree.map(lambda leaf: leaf[0], model.blocks)


@functools.cache
def _encoder() -> Any:
    return jaxsmooth.load("tiny")[0]


@functools.cache
def batch() -> Any:
    return jaxsmooth.load("tiny")[1](["A dull film.", "No."])


@functools.cache
def _traced() -> Any:
    """What the first block of the tiny model makes of a batch."""
    model, tokens = _encoder(), batch()
    return jaxsmooth.encode(model, tokens, collect=lambda trace: trace)[1], tokens.mask


@functools.cache
def _state() -> theory.BlockState:
    trace, mask = _traced()
    first = jax.tree.map(lambda leaf: leaf[0], trace)
    mixing = jnp.full(first.attn.shape[:2], 0.7)
    return theory.BlockState(first.input, first.attn, first.pre_attn, first.std_attn, first.std_mlp, mask, mixing)


@functools.cache
def _norms() -> theory.BlockNorms:
    return theory.block_norms(_block(), "gelu")


@functools.cache
def _region() -> theory.Region:
    state, block = _state(), _block()
    wide = jnp.zeros((*state.mask.shape, block.up.kernel.shape[-1]))
    return theory.Region(state.attn, state.std_attn, state.std_mlp, state.mask, wide, wide + 0.1)


def _law(lead: tuple[int, ...] = ()) -> LocalLaw:
    d = SIZES["D"]
    full = lambda *shape: jnp.full((*lead, *shape), 0.5)  # noqa: E731
    return LocalLaw(full(d), full(d, d), full(d, d), full(), full())


def _operator() -> theory.Dense:
    size = SIZES["T"]
    attn = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).standard_normal((size, size)), jnp.float32))
    return theory.Dense(attn, jnp.ones(size, bool))


STRUCTS: dict[str, Callable[[], Any]] = {
    "block": _block,
    "state": _state,
    "norms": _norms,
    "region": _region,
    "laws": lambda: _law((SIZES["L"],)),
    "law": _law,
    "operator": _operator,
    "blocks": lambda: _encoder().blocks,
    "trace": lambda: jax.tree.map(lambda leaf: leaf[0], _traced()[0]),
    "measure": lambda: theory.subspace_distance,
    "source": batch,
    "target": batch,
    "model": _encoder,
    "batch": batch,
}
SPECIAL: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "attention_dropout": lambda rng: {"key": jax.random.key(0)},
    "attribute": lambda rng: {"mask": batch().mask, "config": _encoder().config, "measure": "relative_distance"},
    "shi2022_rate": lambda rng: {"norms": jax.tree.map(lambda leaf: leaf[None], _norms())},
    "local_law": lambda rng: {"row": jnp.ones(_encoder().config.width), "activation": jax.nn.gelu},
    "local_laws": lambda rng: {"row": jnp.ones(_encoder().config.width), "activation": jax.nn.gelu},
    "patch_effect": lambda rng: {"sites": ("hidden",), "layers": 0},
    "noci2022_relative_distance": lambda rng: {"tokens": 3},
    **dict.fromkeys(
        ("rigollet2025_gap", "rigollet2025_range"), lambda rng: {"gap": jnp.array(0.5), "tokens": jnp.array(3.0)}
    ),
    "subdominant": lambda rng: {"limit": theory.chain_limit(_operator().matrix, _operator().mask)},
    **dict.fromkeys(
        ("follow", "consensus_basin", "approach_consensus", "cluster_counts"), lambda rng: {"apply": lambda x: x / 2}
    ),
    "jacobian_krylov": lambda rng: {
        "apply": lambda x: x / 2,
        "state": jnp.ones((SIZES["B"], SIZES["T"], SIZES["D"])),
        "period": jnp.ones(SIZES["B"], jnp.int32),
        "centred": jnp.ones(SIZES["B"], bool),
    },
    "inside": lambda rng: {
        "pre_activation": _region().centre,
        "std_attn": _state().std_attn,
        "std_mlp": _state().std_mlp,
    },
    "largest_eigenvalue": lambda rng: {"apply": lambda v: 2 * v, "start": jnp.ones(4), "tolerance": 1e-3},
}


def is_traced(key: str, value: Any) -> bool:
    """Whether an argument is arrays; the others are settings."""
    return not (isinstance(value, (str, int, float, tuple)) and not hasattr(value, "_fields")) and not (
        key in ("config", "source", "target") or callable(value)
    )
