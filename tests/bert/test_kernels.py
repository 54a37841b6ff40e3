"""Attention by a kernel: at real tokens the numbers of explicit attention, and only where nobody needs more."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import PLAIN, SMALL, make_trainer, small_batch, small_model

import jaxsmooth
from jaxsmooth.bert.encoder import encode, keep_nothing, keep_trace
from jaxsmooth.bert.kernels import Kernel, find_kernel, make_attend, sites_read, why_explicit
from jaxsmooth.errors import ConfigError, ShapeError
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.sharding import attention_kernel, make_mesh
from jaxsmooth.types import BlockTrace, Edits, compose

pytestmark = pytest.mark.usefixtures("as_users_have_it")
XLA, SPLASH = Kernel("xla", required=True), Kernel("splash", required=True, interpret=True)
VARIANTS = {
    "all": SMALL,
    "causal": dataclasses.replace(SMALL, causal=True),
    "window": dataclasses.replace(SMALL, window=2, global_every=2),
    "causal window": dataclasses.replace(SMALL, window=2, causal=True),
}
HEADS = np.random.default_rng(0).normal(size=(4, 4, 2, 9, 8))  # q, k, v and the cotangent of 4 sentences
MASK = np.ones((4, 9), bool)
MASK[1, 6:] = MASK[2, :3] = MASK[2, 5] = MASK[3] = False  # padded behind, before and between; and no token at all


@pytest.fixture
def as_users_have_it():
    """Without 64-bit numbers and strict promotion, which jax's own kernels are not written for."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def by_hand(config, layer: int) -> list[np.ndarray]:
    """The context of every query and the gradients by q, k, v of its product with the cotangent, in float64."""
    query, key, value, cotangent = HEADS
    far = np.arange(9)[None] - np.arange(9)[:, None]
    seen = np.broadcast_to(MASK[:, None, None, :], (4, 1, 9, 9)).copy()
    if config.causal:
        seen &= far <= 0
    if config.window and (not config.global_every or layer % config.global_every):
        seen &= np.abs(far) <= config.window
    with np.errstate(invalid="ignore"):
        weights = np.where(seen, np.exp(query @ key.swapaxes(-1, -2) / np.sqrt(8)), 0)
        probs = np.nan_to_num(weights / weights.sum(-1, keepdims=True))
    up = cotangent * MASK[:, None, :, None]
    moved = probs * (up @ value.swapaxes(-1, -2))
    by_logits = (moved - probs * moved.sum(-1, keepdims=True)) / np.sqrt(8)
    return [probs @ value, by_logits @ key, by_logits.swapaxes(-1, -2) @ query, probs.swapaxes(-1, -2) @ up]


@pytest.mark.parametrize(
    ("fused", "variant", "layer"),
    [
        (XLA, "all", 0),
        (XLA, "causal", 0),
        (XLA, "window", 1),
        (SPLASH, "all", 0),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in [(SPLASH, "causal", 0), (SPLASH, "causal window", 0)]
        ),
        *(pytest.param(SPLASH, "window", layer, marks=pytest.mark.long) for layer in (0, 1)),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_context_and_gradients_at_real_tokens(fused, variant, layer):
    config = VARIANTS[variant]
    real = MASK[:, None, :, None]

    def run(query, key, value):
        context = make_attend(fused, config, jnp.asarray(MASK))(jnp.int32(layer), query, key, value)
        return jnp.where(real, context, 0), context

    *given, cotangent = (jnp.asarray(heads, jnp.float32) for heads in HEADS)

    @jax.jit
    def both(given):
        found, back, context = jax.vjp(run, *given, has_aux=True)
        return found, *back(cotangent), context

    *found, context = both(given)
    assert np.isfinite(context).all()
    expected = by_hand(config, layer)
    np.testing.assert_allclose(found[0], np.where(real, expected[0], 0), atol=2e-6)
    for gradient, exact in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(gradient, exact, atol=5e-6)


def program(fused, *, edits=Edits(), collect=keep_nothing, config=SMALL, dtype=jnp.float32, **options) -> str:
    """The traced program, nothing compiled."""
    model = jax.eval_shape(lambda: jaxsmooth.init_encoder(config, jax.random.key(0), dtype=dtype))
    batch = small_batch("classification").batch

    def run(model):
        return encode(model, batch, edits=edits, collect=collect, attention=fused, **options)

    return str(jax.make_jaxpr(run)(model))


def is_fused(text: str) -> bool:
    return "pallas_call" in text


def test_it_is_chosen_by_what_is_read_and_edited():
    auto = dataclasses.replace(SPLASH, required=False)
    explicit = program("explicit")
    assert program("auto") == explicit  # on a CPU, to the letter
    assert not is_fused(explicit)
    scaled = Edits(query=lambda layer, query: 2 * query, context=lambda layer, context: -context)
    for collect in (keep_nothing, lambda trace: (trace.hidden, trace.query, trace.attn.shape[0])):
        assert is_fused(program(auto, collect=collect, edits=scaled))
    assert not is_fused(program(auto, collect=keep_trace))

    def same(layer, value):
        return value

    for options, message in [
        ({"collect": keep_trace}, "collected is made of attn"),
        ({"collect": lambda trace: jax.jit(jnp.sum)(trace.attn_logits)}, "made of attn_logits"),
        ({"successive": True}, "made of attn, attn_logits, attn_probs"),
        ({"edits": Edits(attn=same)}, "edit of attn acts"),
        ({"edits": Edits(attn_logits=same)}, "edit of attn_logits acts"),
        ({"edits": Edits(shared_attn=(0, 1))}, "share attention"),
        ({"config": dataclasses.replace(SMALL, relative_buckets=4)}, "relative positions"),
    ]:
        with pytest.raises(ShapeError, match=f"cannot be fused: .*{message}"):
            program(SPLASH, **options)


def test_what_kernels_cannot_do():
    for fused, config, dtype, reason in [
        (Kernel("splash"), SMALL, jnp.float32, "not with all digits of float32"),
        (Kernel("cudnn"), SMALL, jnp.float64, "not with all digits of float64"),
        (Kernel("cudnn"), dataclasses.replace(SMALL, width=18), jnp.bfloat16, "multiple of 8 up to 128, not 9"),
        (Kernel("cudnn"), VARIANTS["window"], jnp.bfloat16, "no window to both sides"),
        (Kernel("splash"), VARIANTS["window"], jnp.bfloat16, ""),
        (Kernel("cudnn"), VARIANTS["causal"], jnp.bfloat16, ""),
        (Kernel("xla"), SMALL, jnp.float64, ""),
    ]:
        found = why_explicit(fused, config, Edits(), dtype)
        assert reason in found
        assert bool(reason) == bool(found)


def test_settings():
    assert [find_kernel("fused", platform).name for platform in ("cpu", "tpu", "cuda")] == ["xla", "splash", "cudnn"]
    assert find_kernel("auto", "cpu") is find_kernel("auto", "rocm") is find_kernel("explicit", "tpu") is None
    assert find_kernel("fused", "tpu").required
    assert not find_kernel("auto", "tpu").required
    with pytest.raises(ShapeError, match="attention must be"):
        find_kernel("flash")
    with pytest.raises(ConfigError, match="Set that to 0"):
        FinetuneConfig(attention="fused")
    assert FinetuneConfig(attention="fused", attention_dropout=0.0).attention == "fused"


def test_a_mesh_cuts_rows_and_heads_but_no_sentences():
    mesh = jax.sharding.AbstractMesh((2, 2, 2, 1), ("data", "fsdp", "tensor", "sequence"))
    found = attention_kernel("auto", mesh, "tpu")
    assert (found.rows, found.heads, found.mesh) == (("data", "fsdp"), ("tensor",), mesh)
    cut = jax.sharding.AbstractMesh((2, 1, 1, 2), mesh.axis_names)
    assert attention_kernel("auto", cut, "tpu") is None
    with pytest.raises(ConfigError, match="cuts them over sequence"):
        attention_kernel("fused", cut, "tpu")
    assert attention_kernel("auto", make_mesh("", jax.devices()[:1])) is None


def test_a_trainer_is_explicit_while_it_drops_attention():
    model, data = small_model("classification", jnp.float32), small_batch("classification", dtype=np.float32)
    rates = {"hidden_dropout": 0.1, "attention_dropout": 0.1}

    def loss(fused, **settings):
        trainer = make_trainer("classification", model, dataclasses.replace(PLAIN, **settings), kernel=fused)
        return str(jax.make_jaxpr(trainer.loss)(model, data, jax.random.key(0)))

    auto = dataclasses.replace(SPLASH, required=False)
    assert not is_fused(loss(auto, **rates))
    assert is_fused(loss(auto, hidden_dropout=0.1))
    with pytest.raises(ShapeError, match="edit of attn acts"):
        loss(SPLASH, **rates)


def test_what_a_collect_reads():
    trace = BlockTrace(**{field.name: jnp.ones(2) for field in dataclasses.fields(BlockTrace)})

    def watched(trace):
        jax.debug.callback(lambda value: None, trace.attn)
        return jnp.where(trace.layer > 0, trace.hidden, trace.input)

    assert sites_read(watched, trace) == {"attn", "layer", "hidden", "input"}
    assert sites_read(lambda trace: {"one": trace.key, "two": trace.attn * 0}, trace) == {"key", "attn"}
    assert sites_read(keep_nothing, trace) == set()


def test_encode_gives_the_hidden_states_of_explicit_attention():
    model = small_model("classification", jnp.float32).encoder
    batch = small_batch("classification").batch
    edits = compose(Edits(key=lambda layer, key: key * 1.5))
    explicit, fused = (
        encode(model, batch, edits=edits, collect=lambda trace: trace.hidden, attention=attention)
        for attention in ("explicit", "fused")
    )
    real = batch.mask[..., None]
    np.testing.assert_allclose(jnp.where(real, explicit[0], 0), jnp.where(real, fused[0], 0), atol=3e-6)
    np.testing.assert_allclose(jnp.where(real, explicit[1], 0), jnp.where(real, fused[1], 0), atol=3e-6)
