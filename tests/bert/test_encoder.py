"""The forward pass as a program: padding, precision, compilation, initialisation, refusals. Parity is elsewhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.models import CONFIG, random_batch, random_model

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.params import encoder_shapes
from jaxsmooth.errors import ShapeError

MODEL = random_model()
LENGTHS = (7, 3)
BATCH = random_batch(LENGTHS)


def real_numbers(batch: jaxsmooth.Batch) -> list[np.ndarray]:
    """Everything computed of the real tokens of the first sentences, one flat vector per sentence."""
    hidden, trace = jaxsmooth.encode(MODEL, batch)
    embedded = jaxsmooth.embed(MODEL, batch)
    flat = []
    for b, n in enumerate(LENGTHS):
        parts = (embedded[b, :n], hidden[b, :n], trace.hidden[:, b, :n], trace.attn[:, b, :, :n, :n])
        stds = (trace.std_attn[:, b, :n], trace.std_mlp[:, b, :n])
        flat.append(np.concatenate([np.asarray(part).ravel() for part in (*parts, *stds)]))
    return flat


def with_garbage_under_padding() -> jaxsmooth.Batch:
    other = random_batch(LENGTHS, seed=1)
    return dataclasses.replace(
        BATCH,
        tokens=jnp.where(BATCH.mask, BATCH.tokens, other.tokens),
        segments=jnp.where(BATCH.mask, BATCH.segments, other.segments),
    )


def with_more_padding() -> jaxsmooth.Batch:
    return jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, 4))), BATCH)


def with_other_mates() -> jaxsmooth.Batch:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), BATCH, random_batch((8, 1, 5), seed=2))


@pytest.mark.parametrize("changed", [with_garbage_under_padding, with_more_padding, with_other_mates])
def test_padding_and_batch_mates_do_not_reach_real_tokens(changed):
    for before, after in zip(real_numbers(BATCH), real_numbers(changed()), strict=True):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)


def test_padded_keys_get_no_attention_and_rows_sum_to_one():
    _, trace = jaxsmooth.encode(MODEL, BATCH)
    attn = np.asarray(trace.attn)
    assert np.all(attn[:, 1, :, :, LENGTHS[1] :] == 0)
    np.testing.assert_allclose(attn.sum(axis=-1), 1, rtol=0, atol=1e-14)


def test_a_sentence_of_padding_alone_stays_finite():
    batch = dataclasses.replace(BATCH, mask=BATCH.mask.at[1].set(False))
    hidden, trace = jaxsmooth.encode(MODEL, batch)
    assert jnp.isfinite(hidden).all()
    np.testing.assert_array_equal(trace.attn[:, 1], np.full_like(trace.attn[:, 1], 1 / 8))


@pytest.mark.parametrize(
    ("name", "x64"),
    [("bfloat16", False), ("bfloat16", True), ("float32", False), ("float32", True), ("float64", True)],
)
def test_outputs_carry_the_models_dtype(name, x64):
    with jax.enable_x64(x64):
        model, batch = random_model(dtype=getattr(jnp, name)), random_batch()
        hidden, trace = jaxsmooth.encode(model, batch)
        outputs = (hidden, trace.hidden, trace.attn, jaxsmooth.embed(model, batch))
    assert {str(value.dtype) for value in outputs} == {name}
    # A std is a sum over features, kept at least in float32.
    stds = {str(trace.std_attn.dtype), str(trace.std_mlp.dtype)}
    assert stds == {"float32" if name == "bfloat16" else name}


@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_lower_precisions_approximate_float64(name, tolerance):
    # bfloat16 has 8 bits: half a unit in the last place of numbers around 4 is 0.008, and three blocks add up.
    low, _ = jaxsmooth.encode(random_model(dtype=getattr(jnp, name)), BATCH)
    exact, _ = jaxsmooth.encode(MODEL, BATCH)
    error = np.abs(np.asarray(low, np.float64) - np.asarray(exact))[np.asarray(BATCH.mask)]
    assert 0 < error.max() < tolerance


@pytest.mark.parametrize("remat", [True, jax.checkpoint_policies.dots_saveable], ids=["all", "policy"])
def test_rematerialisation_changes_no_gradient(remat):
    def loss(model, remat):
        return jnp.sum(jnp.sin(jaxsmooth.encode(model, BATCH, collect=jaxsmooth.keep_nothing, remat=remat)[0]))

    plain, again = (jax.jit(jax.grad(lambda m, choice=choice: loss(m, choice)))(MODEL) for choice in (False, remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13), plain, again)
    recomputed = str(jax.make_jaxpr(lambda m: loss(m, remat))(MODEL))
    assert "remat" in recomputed or "checkpoint" in recomputed


def test_default_calls_compile_once(traces):
    # A shape that no other test uses, so that the first call really compiles.
    first, second = random_batch((5, 2, 4), length=7), random_batch((6, 1, 3), length=7, seed=1)
    jaxsmooth.encode(MODEL, first)
    compiled = len(traces)
    assert compiled
    jaxsmooth.encode(MODEL, second)
    jaxsmooth.encode(random_model(seed=3), second)
    assert len(traces) == compiled


def test_another_shape_or_collect_compiles_anew(traces):
    jaxsmooth.encode(MODEL, random_batch((1, 1, 1), length=6))
    once = len(traces)
    jaxsmooth.encode(MODEL, random_batch((1, 1, 1), length=6), collect=lambda trace: trace.mixed)
    assert len(traces) == 2 * once > 0


def test_the_program_does_not_grow_with_depth():
    def equations(layers: int) -> int:
        config = dataclasses.replace(CONFIG, layers=layers)
        shapes = jax.eval_shape(lambda: jaxsmooth.init_encoder(config, jax.random.key(0)))
        return str(jax.make_jaxpr(lambda model: jaxsmooth.encode(model, BATCH))(shapes)).count(" = ")

    assert equations(2) == equations(9) > 50


def test_collect_decides_what_is_kept():
    hidden, nothing = jaxsmooth.encode(MODEL, BATCH, collect=jaxsmooth.keep_nothing)
    assert nothing == ()
    last, trace = jaxsmooth.encode(MODEL, BATCH)
    np.testing.assert_array_equal(trace.hidden[-1], last)
    np.testing.assert_allclose(hidden, last, rtol=0, atol=1e-13)
    _, kept = jaxsmooth.encode(MODEL, BATCH, collect=lambda t: {"layer": t.layer, "norm": jnp.sum(t.input**2)})
    np.testing.assert_array_equal(kept["layer"], range(CONFIG.layers))
    assert kept["norm"].shape == (CONFIG.layers,)


def test_the_block_trace_is_consistent():
    _, trace = jaxsmooth.encode(MODEL, BATCH, collect=lambda trace: trace)
    np.testing.assert_array_equal(trace.input[0], jaxsmooth.embed(MODEL, BATCH))
    np.testing.assert_array_equal(trace.input[1:], trace.hidden[:-1])
    np.testing.assert_allclose(trace.pre_attn, trace.input + trace.mixed, rtol=1e-13, atol=1e-13)
    variance = np.var(trace.pre_mlp, axis=-1, keepdims=True)
    np.testing.assert_allclose(trace.std_mlp, np.sqrt(variance + CONFIG.eps), rtol=1e-13)
    jax.tree.map(np.testing.assert_array_equal, trace.block, MODEL.blocks)


INITIAL = EncoderConfig(vocab=400, width=96, layers=2, heads=4, mlp_width=200, max_length=50, pad_token=3)


@pytest.fixture(scope="module")
def initial() -> dict[str, np.ndarray]:
    """Every array of a freshly initialised encoder, by its path."""
    model = jaxsmooth.init_encoder(INITIAL, jax.random.key(1))
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {"".join(map(str, path)).strip("."): np.asarray(leaf) for path, leaf in leaves}


def test_initial_kernels_and_tables_are_truncated_normal(initial):
    drawn = [array for path, array in initial.items() if not path.endswith(("bias", "scale", "word"))]
    drawn += [np.delete(initial["embeddings.word"], INITIAL.pad_token, axis=0)]
    assert len(drawn) == 10
    everything = np.concatenate([array.ravel().astype(np.float64) for array in drawn])
    assert np.abs(everything).max() <= 2 * INITIAL.std_init * (1 + 1e-6)
    assert scipy.stats.kstest(everything, scipy.stats.truncnorm(-2, 2, scale=INITIAL.std_init).cdf).pvalue > 1e-3
    assert len({array.ravel()[:50].tobytes() for array in drawn}) == len(drawn)  # no key used twice


def test_initial_biases_and_the_padding_row_are_zero_and_gains_one(initial):
    zeros = [array for path, array in initial.items() if path.endswith("bias")]
    ones = [array for path, array in initial.items() if path.endswith("scale")]
    assert (len(zeros), len(ones)) == (10, 3)
    assert not any(map(np.any, [*zeros, initial["embeddings.word"][INITIAL.pad_token]]))
    assert all(np.all(gain == 1) for gain in ones)


def test_shapes_are_known_without_allocating(initial):
    shapes = encoder_shapes(INITIAL)
    assert shapes == {path: array.shape for path, array in initial.items()}
    assert set(shapes) - set(encoder_shapes(INITIAL, pooler=False)) == {"pooler.kernel", "pooler.bias"}
    vast = encoder_shapes(dataclasses.replace(CONFIG, width=2**18, heads=1))
    assert vast["blocks.up.kernel"] == (3, 2**18, 20)


REFUSALS = {
    "no batch axis": (lambda b: jax.tree.map(lambda a: a[0], b), r"axes \(B, T\); got shape \(8,\).*batch axis"),
    "segments of another shape": (
        lambda b: dataclasses.replace(b, segments=b.segments[:, 1:]),
        r"batch.segments .* \(2, 8\); got \(2, 7\)",
    ),
    "mask of another shape": (
        lambda b: dataclasses.replace(b, mask=b.mask[:1]),
        r"batch.mask .* \(2, 8\); got \(1, 8\)",
    ),
    "integer mask": (lambda b: dataclasses.replace(b, mask=b.mask.astype(jnp.int32)), "mask must be boolean.*int32"),
    "too long": (lambda b: jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, 5))), b), "12 positions; got .* 13 tokens"),
    "fractional tokens": (
        lambda b: dataclasses.replace(b, tokens=b.tokens.astype(jnp.float32)),
        "batch.tokens must hold integers; got float32",
    ),
    "token too large": (
        lambda b: dataclasses.replace(b, tokens=b.tokens.at[0, 0].set(30)),
        r"batch.tokens must lie in 0..29; got \d+..30. Was the text tokenised with another",
    ),
    "negative token": (lambda b: dataclasses.replace(b, tokens=b.tokens.at[0, 0].set(-1)), "tokens .* got -1.."),
    "segment too large": (
        lambda b: dataclasses.replace(b, segments=b.segments.at[1, 7].set(2)),
        "batch.segments must lie in 0..1; got 0..2",
    ),
}


@pytest.mark.parametrize("run", [jaxsmooth.encode, jaxsmooth.embed])
@pytest.mark.parametrize("case", REFUSALS)
def test_a_batch_that_does_not_fit_is_refused(case, run):
    change, message = REFUSALS[case]
    with pytest.raises(ShapeError, match=message):
        run(MODEL, change(BATCH))


def test_shapes_are_checked_under_a_trace_too():
    with pytest.raises(ShapeError, match="mask must be boolean"):
        jax.jit(jaxsmooth.embed)(MODEL, dataclasses.replace(BATCH, mask=BATCH.tokens))


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.int64, jnp.uint32])
@pytest.mark.parametrize(("name", "least_bad"), [("tokens", CONFIG.vocab), ("segments", CONFIG.segments)])
def test_ids_outside_their_table_give_nan_under_a_trace(name, least_bad, dtype):
    bad = [least_bad, 100] if dtype == jnp.uint32 else [least_bad, 100, -1, -least_bad]
    for value in bad:
        ids = getattr(BATCH, name).astype(dtype).at[0, 1].set(value)
        out = jax.jit(jaxsmooth.embed)(MODEL, dataclasses.replace(BATCH, **{name: ids}))
        expected = np.zeros((2, 8), bool)
        expected[0, 1] = True
        np.testing.assert_array_equal(np.isnan(out).all(axis=-1), expected)
        np.testing.assert_array_equal(np.isnan(out).any(axis=-1), expected)


def test_a_model_without_token_types_ignores_segments():
    model = random_model(dataclasses.replace(CONFIG, segments=0))
    batch = dataclasses.replace(BATCH, segments=BATCH.segments + 7)
    first, second = jaxsmooth.encode(model, batch)[0], jaxsmooth.encode(model, random_batch(seed=0))[0]
    np.testing.assert_array_equal(first, second)


def test_the_model_is_a_plain_pytree():
    shifted = jax.tree.map(lambda a: a + 1, MODEL)
    np.testing.assert_array_equal(shifted.blocks.norm_mlp.scale, MODEL.blocks.norm_mlp.scale + 1)
    assert shifted.config == CONFIG
    swapped = dataclasses.replace(MODEL, pooler=None)
    assert len(jax.tree.leaves(swapped)) == len(jax.tree.leaves(MODEL)) - 2
