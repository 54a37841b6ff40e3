"""All theory that runs on a device compiles for TPU and CUDA with their own compilers; nothing of it is executed here.

Shapes are those of a real model's layer where compiling needs that (tiles, layouts), small where it does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import aot

from jaxsmooth import EncoderConfig, init_encoder, theory
from jaxsmooth.linalg.enclosed_norms import squared_norm
from jaxsmooth.studies import converge, measurements
from jaxsmooth.theory.rates.region import Region
from jaxsmooth.types import Batch

pytestmark = pytest.mark.aot
DEVICES = (*aot.TPUS, "h100")
TOKENS, WIDTH, HEADS, HEAD_WIDTH, MLP = 128, 256, 4, 64, 512
# A float64 TPU program exists, emulated; float32 is what one would run.
DTYPE = np.float32


@pytest.fixture(params=DEVICES)
def device(request):
    name = request.param
    if name == "h100" and not (aot.CUDA / "nvvm" / "libdevice").is_dir():
        pytest.skip(f"no CUDA toolkit, whose libdevice the compiler needs, in {aot.CUDA}; CUDA_HOME may name another")
    return name


def numbers(*shape):
    return jax.ShapeDtypeStruct(shape, DTYPE)


def flags(*shape):
    return jax.ShapeDtypeStruct(shape, bool)


def test_the_devices_are_what_they_are_called():
    assert [aot.device(name).device_kind for name in aot.TPUS] == ["TPU v5 lite", "TPU v6 lite"]
    assert "H100" in aot.device("h100").device_kind


@pytest.mark.parametrize("name", aot.TPUS)
def test_the_compiler_is_the_real_one(name):
    """It refuses what a TPU cannot do: eigenvalues of a nonsymmetric matrix, and more memory than the chip has."""
    with pytest.raises(Exception, match=r"[Ee]ig|not implemented"):
        aot.compile_for(name, jnp.linalg.eigvals, numbers(16, 16))
    with pytest.raises(Exception, match=r"hbm|HBM|memory"):
        aot.compile_for(name, lambda x: jnp.outer(x, x) @ jnp.outer(x, x), numbers(1 << 17))


def blocked(query, key, mask):
    return theory.blocked_attention(query, key, mask, ahead=0)


OPERATORS = {
    "dense": lambda matrix, query, key, mask: theory.Dense(matrix, mask),
    "centred": lambda matrix, query, key, mask: theory.Centred(theory.Dense(matrix, mask)),
    "residual": lambda matrix, query, key, mask: theory.Residual(theory.Dense(matrix, mask), jnp.float32(0.5)),
    "blocked": lambda matrix, query, key, mask: blocked(query, key, mask),
    "centred blocked": lambda matrix, query, key, mask: theory.Centred(blocked(query, key, mask)),
    "multi-head": lambda matrix, query, key, mask: theory.MultiHead(
        theory.Dense(jnp.stack([matrix, matrix]), jnp.stack([mask, mask])), jnp.zeros((2, WIDTH, WIDTH), DTYPE)
    ),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators(device, kind):
    """Apply, transpose-apply, norm, iteration for a number of steps and until a tolerance, in one program."""
    size = 2048 if "blocked" in kind else TOKENS

    def everything(matrix, query, key, mask, hidden):
        operator = OPERATORS[kind](matrix, query, key, mask)
        width = WIDTH if kind == "multi-head" else 1
        return (
            operator.apply(hidden),
            operator.transpose_apply(hidden),
            theory.operator_norm(operator, width=width),
            theory.iterate(operator, hidden, 16)[0],
            theory.iterate_until(operator, hidden, tolerance=1e-3),
        )

    shapes = numbers(size, size), numbers(size, HEAD_WIDTH), numbers(size, HEAD_WIDTH), flags(size)
    aot.compile_for(device, everything, *shapes, numbers(size, WIDTH))


def test_matrix_free_attention_takes_no_memory_for_the_matrix(device):
    """65536 tokens: A would take 16 GiB, more than a TPU v5e has."""
    size = 65536

    def round_trip(query, key, mask, hidden):
        operator = blocked(query, key, mask)
        return operator.transpose_apply(operator.apply(hidden))

    made = aot.compile_for(
        device, round_trip, numbers(size, HEAD_WIDTH), numbers(size, HEAD_WIDTH), flags(size), numbers(size, HEAD_WIDTH)
    )
    assert made.memory_analysis().temp_size_in_bytes < 2**30


def test_spectra_of_many_heads(device):
    def spectra(attn, mask):
        return theory.mixing_rate(attn, mask), theory.spectral_norm(attn), theory.slem(attn, mask)

    aot.compile_for(device, spectra, numbers(2, HEADS, TOKENS, TOKENS), flags(2, TOKENS))


def test_arnoldi(device):
    def factor(query, key, mask):
        return theory.arnoldi(theory.Centred(blocked(query, key, mask)), steps=24)

    aot.compile_for(device, factor, numbers(2048, HEAD_WIDTH), numbers(2048, HEAD_WIDTH), flags(2048))


def test_convergence(device):
    """Limit, rates and the iteration itself, of several heads at once, without an eigenvalue solver."""

    def run(attn, hidden, mask, logits):
        one = lambda a, h, s: theory.converge(a, h, mask, logits=s, steps=64)  # noqa: E731
        return jax.vmap(one)(attn, hidden, logits)

    square = numbers(HEADS, TOKENS, TOKENS)
    aot.compile_for(device, run, square, numbers(HEADS, TOKENS, HEAD_WIDTH), flags(TOKENS), square)


def abstract_weights():
    return jax.eval_shape(
        theory.block_of,
        value=numbers(WIDTH, HEADS, HEAD_WIDTH),
        output=numbers(HEADS, HEAD_WIDTH, WIDTH),
        scale_attn=numbers(WIDTH),
        up=numbers(WIDTH, MLP),
        down=numbers(MLP, WIDTH),
        scale_mlp=numbers(WIDTH),
    )


def test_the_ladder(device):
    """L0 to L4 with the norms of the weights."""

    def ladder(weights, state):
        norms = theory.block_norms(weights, "gelu")
        stacked = jax.tree.map(lambda leaf: leaf[None], norms)
        return (
            theory.shi2022_rate(stacked, "gelu", state.mixing_rate[None], theory.std_product(state)[None]),
            theory.block_rate(norms, state),
            theory.refined_rate(norms, state),
            theory.pairwise_rate(norms, state),
            theory.operator_rate(weights, norms, state),
            theory.data_rate(norms, state),
        )

    hidden, std = numbers(2, TOKENS, WIDTH), numbers(2, TOKENS, 1)
    attn = numbers(2, HEADS, TOKENS, TOKENS)
    state = theory.BlockState(hidden, attn, hidden, std, std, flags(2, TOKENS), numbers(2, HEADS))
    aot.compile_for(device, ladder, abstract_weights(), state)


@pytest.mark.parametrize("rate", [theory.slope_box_rate, theory.secant_box_rate])
def test_region_rates(device, rate):
    size = 16
    std, box = numbers(1, size, 1), numbers(1, size, MLP)
    region = Region(numbers(1, HEADS, size, size), std, std, flags(1, size), box, box)
    aot.compile_for(device, lambda weights, region: rate(weights, region, "gelu"), abstract_weights(), region)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certificates_by_products_alone(device, dtype):
    if dtype == np.float64 and device != "h100":
        pytest.skip("a TPU has no float64; its emulation is no IEEE arithmetic, which the certificates assume")
    matrices = jax.ShapeDtypeStruct((HEADS, TOKENS, WIDTH), dtype)
    aot.compile_for(device, jax.vmap(squared_norm), matrices)


def test_diagnosis_and_convergence_of_a_whole_model(device):
    """What `diagnose` and `converge` run on every batch."""
    config = EncoderConfig(vocab=100, width=WIDTH, layers=2, heads=HEADS, mlp_width=MLP, max_length=TOKENS)
    model = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0), dtype=jnp.float32, pooler=False))
    tokens = jax.ShapeDtypeStruct((2, TOKENS), np.int32)
    batch = Batch(tokens=tokens, segments=tokens, mask=flags(2, TOKENS))
    aot.compile_for(
        device,
        lambda model, batch: measurements.measure_batch(model, measurements.model_norms(model), batch),
        model,
        batch,
    )
    aot.compile_for(
        device,
        lambda model, batch: converge.iterate_heads(model, batch, jnp.int32(4), steps=64, tolerance=1e-3),
        model,
        batch,
    )
