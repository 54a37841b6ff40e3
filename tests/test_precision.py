"""Products in full precision and sums in float32: read off the programs of all public functions, not run."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import public
from support.training import PLAIN, make_trainer, small_batch, small_model

import jaxsmooth
from jaxsmooth import family_config, theory
from jaxsmooth.linalg.precision import matmul
from jaxsmooth.training.step import init_state

FUNCTIONS = public.functions()
IN_THE_MODELS_DTYPE = ("jaxsmooth.mitigations", "jaxsmooth.interventions")
GIVEN = {"largest_eigenvalue"}  # whose operator is the caller's
SMALL = {"vocab": 30, "width": 8, "layers": 2, "heads": 2, "mlp_width": 16, "max_length": 12, "pad_token": 0}
VARIANTS = {
    **{name: family_config(name, **SMALL) for name in ("bert", "mpnet", "modernbert", "gpt2")},
    "albert": family_config("albert", **SMALL, embedding_width=4),
    "vit": family_config("vit", **{**SMALL, "max_length": 10}, image_size=6, patch_size=2),
    # From 256 terms on, sums are taken in halves.
    "wide": family_config("bert", **{**SMALL, "width": 256}),
}


def products(text: str) -> list[str]:
    """The products of a lowered program, one a line."""
    return [line.strip() for line in text.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)\b", line)]


def rounded(text: str) -> list[str]:
    """Those of float32 numbers that a device may round to fewer bits."""
    return [line for line in products(text) if "f32" in line and "[HIGHEST, HIGHEST]" not in line]


def lowered(function, *arguments) -> str:
    return jax.jit(function).lower(*arguments).as_text()


@pytest.mark.compatibility("precision", "a float32 product of any public function on TPU or GPU", "all digits", was=1)
@pytest.mark.compatibility("measure", "bfloat16 arrays in measures and theory", "summed in float32", was=1)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_sums_in_float32_and_multiplies_in_full(name):
    """Of bfloat16 arrays too, but where they are the model's own: the first thing that is done is to widen them."""
    function = FUNCTIONS[name]
    wide = function.__module__.startswith(IN_THE_MODELS_DTYPE)
    given = public.arguments(name, function, jnp.float32 if wide else jnp.bfloat16)
    static = {key: value for key, value in given.items() if not public.is_traced(key, value)}
    traced = {key: value for key, value in given.items() if key not in static}
    text = lowered(lambda traced: function(**traced, **static), traced)
    assert not rounded(text)
    if name not in GIVEN:
        narrow = [line for line in text.splitlines() if "bf16" in line]
        assert not [line for line in narrow if "stablehlo.convert" not in line and "func.func public" not in line]


@pytest.mark.compatibility("precision", "products of encode and of its gradient", "all digits on any device", was=1)
@pytest.mark.parametrize("name", VARIANTS)
def test_encode_and_its_gradient(name):
    config = VARIANTS[name]
    model = jax.eval_shape(functools.partial(jaxsmooth.init_encoder, config), jax.random.key(0))
    ids, real = jnp.ones((2, 6), jnp.int32), jnp.ones((2, 6), bool)
    batch = jaxsmooth.Batch(tokens=ids, segments=0 * ids, mask=real)
    if config.is_vision:
        batch = jaxsmooth.image_batch(config, jnp.ones((2, 3, 6, 6), jnp.float32))
    # The rules of a jitted function's derivative are traced after it, outside of whatever it was called in.
    loss = jax.jit(lambda model: jnp.sum(jaxsmooth.encode(model, batch)[0] ** 2))
    text = lowered(jax.value_and_grad(loss), model)
    assert len(products(text)) >= 8 + 2 * 8
    assert not rounded(text)


@pytest.mark.compatibility("precision", "a float32 training step", "as --matmul-precision says: all digits", was=1)
@pytest.mark.parametrize(
    ("precision", "policy", "fusion", "kept"),
    [
        ("float32", "highest", "concat", "[HIGHEST, HIGHEST]"),
        ("float32", "high", "gate", "[HIGH, HIGH]"),
        ("float32", "default", "", "[DEFAULT, DEFAULT]"),
        ("bfloat16", "highest", "", "[DEFAULT, DEFAULT]"),
    ],
)
def test_a_training_step_has_the_precision_that_the_run_states(precision, policy, fusion, kept):
    model = small_model("classification", jnp.float32, fusion=fusion)
    config = dataclasses.replace(PLAIN, precision=precision, matmul_precision=policy)
    trainer = make_trainer("classification", model, config)
    state, data = init_state(model, trainer.optimiser, config), small_batch("classification", dtype=np.float32)
    for text in (lowered(trainer.step, state, data), lowered(trainer.logits, model, data)):
        assert products(text)
        assert all(kept in line or ("precision" not in line and "DEFAULT" in kept) for line in products(text))


def test_what_the_user_states_holds():
    ones = jnp.ones((2, 2), jnp.float32)
    with jax.default_matmul_precision("high"):
        assert "[HIGH, HIGH]" in lowered(matmul, ones, ones)
    assert "[HIGHEST, HIGHEST]" in lowered(matmul, ones, ones)


def test_arrays_of_other_kinds_are_taken():
    """numpy's, of whole numbers, of bfloat16 and of float16: the answer of the same numbers in float32."""
    numbers, mask = np.array([[3, 4], [0, 5], [1, 1]]), np.ones(3, bool)
    expected = jaxsmooth.metrics.token_cosine_similarity(jnp.asarray(numbers, jnp.float32), jnp.asarray(mask))
    for kind in (np.int32, np.float32, np.float16, jnp.bfloat16):
        found = jaxsmooth.metrics.token_cosine_similarity(numbers.astype(kind), mask)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_option_may_be_an_array():
    attn, hidden = jnp.array([[0.75, 0.25], [0.25, 0.75]]), jnp.array([[1.0], [3.0]])
    found = [theory.converge(attn, hidden, jnp.ones(2, bool), tolerance=size) for size in (1e-3, jnp.asarray(1e-3))]
    assert int(found[0].observed_steps) == int(found[1].observed_steps) == 10


@pytest.mark.parametrize("name", ["effective_rank", "mixing_rate", "token_cosine_similarity"])
def test_a_measure_called_by_itself_again_compiles_nothing(name, caplog):
    """Operation by operation a loop is compiled anew at every call, which takes a second."""
    tokens, mask = jnp.ones((2, 4, 8)), jnp.ones((2, 4), bool)
    given = jnp.full((2, 2, 4, 4), 0.25) if name == "mixing_rate" else tokens
    measure = getattr(jaxsmooth.metrics, name)
    with jax.log_compiles():
        for times in range(2):
            caplog.clear()
            jax.block_until_ready(measure(given, mask))
            assert ("Compiling" in caplog.text) == (times == 0)
