"""Every public function of `theory` on awkward inputs: no foreign exception, no NaN unasked, no broken bound."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import awkward, public

from jaxsmooth import theory
from jaxsmooth.errors import JaxsmoothError
from jaxsmooth.linalg.norm_ball import NormBall
from jaxsmooth.linalg.norms import quotient

FUNCTIONS = awkward.functions()
EXAMPLES = 5

# What a documented answer is NaN or infinite for.
NOT_A_NUMBER = {
    "relative_distance": "no token differs from 0",
    "actual_rate": "from consensus",
    "data_rate": "from consensus",
    "cosine_distance": "fewer than two tokens",
    "stationary_law": "several closed classes, or none",
    "detailed_balance_defect": "several closed classes",
    "causal_second_eigenvalue": "attention to later tokens",
    "rusch2023_decay": "measures of 0",
    "dovonon2024_unification_rate": "a first eigenvalue other than 1",
    "li2026_rate": "no eigenvalue that dominates",
    "dong2021_cubic_rate": "logits beyond the dtype",
    "residual_spectrum_rate": "from consensus",
    "class_separation": "equal rows",
    "follow": "steps that were not taken, of distances",
    "approach_consensus": "no deviation to begin with",
}
# Driven by default: of every kind of function one or two. The others take a minute and more, of making programs.
CORE = {
    *("subspace_distance", "relative_distance", "diameter", "project_away", "mixing_rate", "ergodicity_coefficient"),
    *("logit_spread", "token_spread", "stationary_law", "subdominant", "dobrushin1956_spread", "pair_weight"),
    *("shi2022_mixing", "shi2022_activation", "tanh_collapse", "oscillation_ergodicity", "cosine_distance_bound"),
    *("cosine_bridge", "fusion_gate", "wu2024_masked_attention", "wu2023_gat_collapse", "zhao2020_pair_norm"),
    *("geshkovski2023_clustering", "geshkovski2023_discrete_step", "dong2021_gamma", "li2026_alignment"),
    *("layer_norm_pair_distances", "scholkemper2024_initial_residual", "wang2022_feat_scale", "castin2024_bound"),
}
# Those that read a whole model, those of many loops, and those of programs that take half a second to make.
DEAR_TO_RUN = {
    *("converge_symmetric", "follow", "cluster_counts", "jacobian_krylov", "apriori_mixing_rate", "operator_norm"),
    *("zhang2025_effective_rank", "invariant_linear", "shi2022_resgcn_stretch", "weight_oscillation"),
    *("attention_stretch", "block_rate", "contraction_threshold", "operator_rate", "pairwise_rate", "refined_rate"),
    *("pre_norm_block_rate", "pre_norm_rate", "pre_ln_rate", "data_rate", "shi2022_rate", "local_law", "local_laws"),
    *("secant_box_rate", "slope_box_rate", "block_norms", "converge", "slem", "subdominant", "std_product", "inside"),
    *("layer_norm_chain", "castin2024_local_lipschitz", "invariant_activation", "local_exponent", "invariant_mixing"),
}
PRE = theory.RandomBlock(placement="pre")
DEAR_ON_THE_HOST = {"neighbourhood_rate", "largest_eigenvalue", "residual_spectrum_rate"}


def host_cases(case: awkward.Case) -> dict[str, tuple]:
    """Arguments of the functions that `public.arguments` does not make: those of the host, structs and callables."""
    rng, real = np.random.default_rng(case.seed), case.real
    size = (awkward.tokens(), awkward.tokens())
    attn = awkward.attention_of(case, rng, size, awkward.GARBAGE)
    inner = attn[np.ix_(real, real)]
    weight = case.scale * rng.standard_normal((2, 2))
    hidden = awkward.hidden_of(case, rng, (awkward.tokens(), 2), awkward.GARBAGE)
    one, none = np.ones(2), np.zeros((2, 1, 1))
    block = theory.block_of(none, none.transpose(1, 2, 0), one, np.eye(2), np.eye(2), one)
    std = np.ones((1, awkward.tokens(), 1))
    near = theory.Neighbourhood(inner[None], hidden[real], np.ones(real.sum()), np.ones(real.sum()), one)
    low = np.array([-case.scale, 0.0])
    return {
        "residual_eigenvalues": (inner, weight),
        "residual_fate": (inner, weight),
        "closed_classes": (attn, real),
        "group_inverse": (attn, real),
        "meyer1994_lower": (attn, real),
        "meyer1994_upper": (attn, real),
        "ritz_values": (theory.Hessenberg(inner, np.zeros(())),),
        "kim2021_witness": (case.scale,),
        "wu2024_antipodal": (),
        "wu2024_equilibrium": (),
        "activation_kernel": ("gelu", case.scale, 0.5),
        "activation_slope": ("gelu", case.scale),
        "cowsik2024_step": (PRE, case.scale, 0.5, int(real.sum())),
        "cowsik2024_exponents": (PRE, case.scale),
        "cowsik2024_powers": (PRE,),
        "cowsik2024_critical_value": (theory.RandomBlock(),),
        "bruno2024_growth": (case.scale, 2 + int(real.sum()), 3),
        "bruno2024_degree": (case.scale, 2 + int(real.sum())),
        "zhang2026_smoothing": (inner, hidden[real], np.arange(real.sum()) % 2),
        "block_of": (none, none.transpose(1, 2, 0), one, np.eye(2), np.eye(2), one),
        "neighbourhood_rate": (block, near, "gelu", 1e-5),
        "residual_spectrum_rate": (
            *(block, *map(jnp.asarray, (hidden[None], hidden[None], hidden[None], std, std[..., 0], real[None]))),
            "gelu",
        ),
        "rusch2023_vanishes_at_consensus": (theory.subspace_distance, hidden, real, 1e-5),
        "largest_eigenvalue": (lambda v: 2 * v, jnp.asarray(hidden[2])),
        "slope_range": ("gelu", low, low + 1),
        "secant_slope": ("gelu", low, low),
        "secant_range": ("gelu", low, low + 1, low * 0, low * 0),
        "ball_rate": (block, hidden[real], 1e-3, "gelu", 1e-5),
        "inner_radius": (block, hidden[real], near, 1e-5),
        "li2026_principal_subspace": (weight,),
        "clauset2009_power_law": (hidden[real, 0] ** 2,),
        "krylov_radius": (theory.Krylov(weight[None], np.zeros(1)), np.ones(1, np.int32)),
        "spectral_radius": (NormBall(inner, 0.0),),
        "open_hemisphere": (hidden[real],),
        "has_sink": (inner,),
        "rooted_radius": (inner > 0,),
        "clopper_pearson1934_limits": (int(real.sum()) // 2, int(real.sum())),
        **dict.fromkeys(("wilks1941_limit", "vovk2005_limit"), (hidden[real, 0],)),
        "paired_difference": (hidden[real, 0], hidden[real, -1]),
    }


OPTIONS = {"largest_eigenvalue": {"tolerance": 1e-3}}
HOST = tuple(host_cases(awkward.Case("full", "generic", "softmax", 1.0, 0)))
# Of whole models, not of tokens: tests/theory/basin and tests/theory/every_input.
MODELS = {"certified_basin", "hypothesis_for_every_input", "stored_for_every_input"}
DRIVEN = tuple(name for name in FUNCTIONS if name not in HOST and name not in MODELS)


def test_every_public_function_is_driven():
    """A new one is, by its annotations: it is traced below, which fails where it asks for an entry in a table."""
    assert MODELS | set(HOST) <= set(FUNCTIONS)
    assert len(DRIVEN) > 100
    assert set(NOT_A_NUMBER) | CORE | DEAR_ON_THE_HOST | DEAR_TO_RUN <= set(FUNCTIONS)


@functools.cache
def compiled(name: str, dtype: type, static: tuple[str, ...]):
    """The function of its arrays, its other arguments as they are made for it."""
    made = awkward.arguments(name, FUNCTIONS[name], awkward.Case("full", "generic", "softmax", 1.0, 0), dtype)
    settings = {key: made[key] for key in static}
    return jax.jit(lambda arrays: FUNCTIONS[name](**arrays, **settings))


def answer(name: str, case: awkward.Case, dtype: type, garbage: float = awkward.GARBAGE):
    made = awkward.arguments(name, FUNCTIONS[name], case, dtype, garbage)
    static = tuple(key for key, value in made.items() if not public.is_traced(key, value))
    arrays = {key: value for key, value in made.items() if key not in static}
    return jax.tree.map(np.asarray, compiled(name, dtype, static)(arrays))


def check_numbers(name: str, case: awkward.Case, found) -> None:
    """A statement holds where it applies; other answers are numbers unless the documentation has another word."""
    if isinstance(found, theory.Statement):
        lhs, rhs, applicable = np.broadcast_arrays(*found)
        lhs, rhs = lhs[applicable].astype(float), rhs[applicable].astype(float)
        assert not np.isnan(lhs).any(), (name, case)
        assert not np.isnan(rhs).any(), (name, case)
        eps = float(np.finfo(found.lhs.dtype).eps)
        # Lanczos's norms on the right are lower estimates; equal tokens leave the rounding of their size.
        slack = max(2e-4, 1e3 * eps) * np.abs(rhs) + 1e3 * eps * max(case.scale, 1) ** 2
        assert np.all(lhs <= rhs + np.where(np.isfinite(rhs), slack, 0)), (name, case, lhs, rhs)
    elif name not in NOT_A_NUMBER and np.all(getattr(found, "applicable", True)):
        for leaf in jax.tree.leaves(found):
            assert not (leaf.dtype.kind == "f" and np.isnan(leaf).any()), (name, case, found)


def check_padding(case: awkward.Case, found, other) -> None:
    """What stands on padding changes no answer about the sentence, and no row of a real token."""
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True):
        axes = [axis for axis, length in enumerate(one.shape) if length == awkward.tokens()]
        for axis in axes:
            one, two = (np.compress(case.real, leaf, axis=axis) for leaf in (one, two))
        np.testing.assert_array_equal(one, two)


def drive(name: str, dtype: type, case: awkward.Case) -> None:
    with contextlib.suppress(JaxsmoothError):
        found = answer(name, case, dtype)
        check_numbers(name, case, found)
        if not case.real.all():
            check_padding(case, found, answer(name, case, dtype, -3.0))


def named(names, dear) -> list:
    return [pytest.param(name, marks=pytest.mark.long if name in dear else ()) for name in names]


@pytest.mark.parametrize("name", named(DRIVEN, {*DRIVEN} - CORE))
@settings(max_examples=EXAMPLES)
@given(case=awkward.cases())
def test_in_float32(name, case):
    drive(name, np.float32, case)


@pytest.mark.long
@pytest.mark.parametrize("name", DRIVEN)
@settings(max_examples=200)
@given(case=awkward.cases(), dtype=st.sampled_from([np.float32, np.float64]))
def test_in_both_precisions(name, case, dtype):
    drive(name, dtype, case)


@pytest.mark.parametrize("name", named(HOST, DEAR_ON_THE_HOST))
@settings(max_examples=2 * EXAMPLES)
@given(case=awkward.cases())
def test_on_the_host(name, case):
    with contextlib.suppress(JaxsmoothError):
        found = FUNCTIONS[name](*host_cases(case)[name], **OPTIONS.get(name, {}))
        if isinstance(found, theory.Statement):
            check_numbers(name, case, jax.tree.map(np.asarray, found))


SMALLEST = [awkward.Case(*case, 0) for case in (("full", "generic", "softmax", 1.0), ("none", "zero", "softmax", 1.0))]
SMALLEST += [awkward.Case("full", "generic", "softmax", scale, 0) for scale in (1e-30, 1e30)]


# Called by themselves, not in a program of the test: so lists go in as they are.
@pytest.mark.parametrize("name", named(DRIVEN, DEAR_TO_RUN))
def test_one_token_of_one_feature_in_lists(name, monkeypatch):
    """Sizes of 1 fail while a program is made, or else when it divides by n - 1; lists are arrays."""
    for axis in ("T", "S", "D", "E"):
        monkeypatch.setitem(public.SIZES, axis, 1)
    annotated = inspect.signature(FUNCTIONS[name]).parameters
    with jax.enable_x64(False):  # so that lists are float32
        for case in SMALLEST:
            made = awkward.arguments(name, FUNCTIONS[name], case, np.float32)
            for key, value in made.items():
                if isinstance(value, np.ndarray) and value.ndim and key in annotated:
                    made[key] = value.tolist()
            with contextlib.suppress(JaxsmoothError):
                check_numbers(name, case, jax.tree.map(np.asarray, FUNCTIONS[name](**made)))


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_quotients_of_large_and_small_numbers_in_a_program(size):
    """XLA must not multiply what was divided to keep it in range."""
    over, under = (jnp.float32(k * size) for k in (3, 2))
    assert jax.jit(quotient)(over, under) == pytest.approx(1.5)
    assert jax.jit(jax.grad(quotient, 1))(over, under) * np.float32(size) == pytest.approx(-0.75)
