"""Bounds over every input: adversaries never exceed them, some cases attain them, and each hypothesis is needed."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxsmooth
from jaxsmooth import EncoderConfig, init_encoder
from jaxsmooth.errors import ConfigError
from jaxsmooth.theory import LayerForEveryInput, block_of, hypothesis_for_every_input, stored_for_every_input
from jaxsmooth.theory.every_input import certificate, relaxation, search, stored, witness
from jaxsmooth.theory.every_input.hypothesis import smallest_product
from jaxsmooth.theory.every_input.reachable import FLOOR, reachable, rows_of_norm
from jaxsmooth.types import LayerNorm, map_named

STEPS = (60, 40)
EPS = 1e-12

# phi in float64 and mpmath, from the definitions.
PHI = {
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: 0.5 * z * (1 + np.vectorize(math.erf)(z / np.sqrt(2))),
    "gelu_tanh": lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z / (1 + np.exp(-z)),
}
EXACT_PHI = {
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "gelu_tanh": lambda z: z * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpmath.mpf("0.044715") * z**3))) / 2,
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
}


def random_block(rng, width=6, heads=2, units=10, size=1.0, **kwargs):
    """A block of random parameters, and the norm before it."""
    narrow = width // heads
    draw = rng.standard_normal
    block = block_of(
        size * draw((width, heads, narrow)) / np.sqrt(width),
        size * draw((heads, narrow, width)) / np.sqrt(narrow),
        1 + 0.3 * draw(width),
        size * draw((width, units)) / np.sqrt(width),
        size * draw((units, width)) / np.sqrt(units),
        1 + 0.3 * draw(width),
        value_bias=0.3 * draw((heads, narrow)),
        output_bias=0.3 * draw(width),
        bias_attn=0.3 * draw(width),
        up_bias=0.5 * draw(units),
        down_bias=0.3 * draw(width),
        bias_mlp=0.3 * draw(width),
    )
    return block, LayerNorm(scale=1 + 0.3 * draw(width), bias=0.3 * draw(width))


def normed(rows, norm, eps=EPS):
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * norm.scale + norm.bias


def forward(block, x, attn, phi, eps=EPS):
    """Stds of every token, [T] each, by numpy: the block as docs/theory.md defines it."""
    value, out = block.attn.value, block.attn.output
    mixed = sum(
        attn[h] @ (x @ value.kernel[:, h] + value.bias[h]) @ out.kernel[h] for h in range(value.kernel.shape[1])
    )
    u = x + mixed + out.bias
    std_attn = np.sqrt(u.var(-1) + eps)
    y = (u - u.mean(-1, keepdims=True)) / std_attn[:, None] * block.norm_attn.scale + block.norm_attn.bias
    z = y + phi(y @ block.up.kernel + block.up.bias) @ block.down.kernel + block.down.bias
    return std_attn, np.sqrt(z.var(-1) + eps)


def random_attention(rng, heads, tokens):
    """From nearly uniform to hard."""
    logits = rng.standard_normal((heads, tokens, tokens)) * 10 ** rng.uniform(-1, 2)
    found = np.exp(logits - logits.max(-1, keepdims=True))
    return found / found.sum(-1, keepdims=True)


def bounds(block, norm, activation, steps=STEPS):
    """Certified bounds of std_attn and of the product."""
    known = reachable(block, rows_of_norm(norm), activation, EPS)
    grams = np.stack([gram.mid for gram in known.grams])
    std = certificate.largest_std(known, search.std_shares(grams))
    return std, smallest_product(known, std, steps=steps)[0]


@pytest.mark.parametrize(
    ("activation", "seed", "tightness"),
    [("relu", 0, 0.55), ("gelu", 1, 0.55), ("gelu_tanh", 2, 0.55), ("silu", 3, 0.4)],
)
def test_no_text_exceeds_the_bounds(activation, seed, tightness):
    """Random texts of 1 to 40 tokens, with attention of every sharpness, and an adversary over all rows."""
    rng = np.random.default_rng(seed)
    block, norm = random_block(rng, size=2.0)
    std, product = bounds(block, norm, activation)
    for _ in range(300):
        tokens = int(rng.integers(1, 41))
        x = normed(rng.standard_normal((tokens, 6)), norm)
        stds = forward(block, x, random_attention(rng, 2, tokens), PHI[activation])
        assert stds[0].max() <= std
        assert (stds[0] * stds[1]).max() <= product
    worst = witness.largest_found(block, rows_of_norm(norm), activation, EPS, steps=100)
    assert worst.product <= product
    # Not vacuous: the adversary comes near. SiLU is farthest from max(z, 0), which the cut compares with.
    assert worst.product >= tightness * product


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 160))
def test_no_text_exceeds_the_bounds_of_many_blocks(seed):
    """Blocks of every size of weights: 1,000 texts each."""
    rng = np.random.default_rng(seed)
    activation = sorted(FLOOR)[seed % 4]
    block, norm = random_block(rng, units=int(rng.integers(1, 20)), size=10 ** rng.uniform(-1, 1))
    std, product = bounds(block, norm, activation)
    for _ in range(1000):
        tokens = int(rng.integers(1, 41))
        # Few different rows, often repeated, and attention of any kind.
        x = normed(rng.standard_normal((4, 6)), norm)[rng.integers(0, rng.integers(1, 5), tokens)]
        stds = forward(block, x, random_attention(rng, 2, tokens), PHI[activation])
        assert stds[0].max() <= std
        assert (stds[0] * stds[1]).max() <= product
    assert witness.largest_found(block, rows_of_norm(norm), activation, EPS, steps=400).product <= product


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_numbers_of_any_size_are_answered(factor):
    """Bounds that hold, infinite where nothing is proved; no exception and no NaN."""
    block, norm = random_block(np.random.default_rng(0))
    block, norm = jax.tree.map(lambda leaf: factor * leaf, (block, norm))
    std, product = bounds(block, norm, "gelu", (3, 2))
    x = normed(np.random.default_rng(1).standard_normal((4, 6)), norm)
    stds = forward(block, x, np.full((2, 4, 4), 0.25), PHI["gelu"])
    assert stds[0].max() <= std
    assert (stds[0] * stds[1]).max() <= product


def test_without_an_mlp_the_bound_is_attained():
    """W_2 = 0 and unit gain: std_mlp is 1, and a text of N + 1 tokens attains the product's bound up to rounding."""
    rng = np.random.default_rng(0)
    block, norm = random_block(rng)
    none = dataclasses.replace(block.down, kernel=0 * block.down.kernel, bias=0 * block.down.bias)
    first = LayerNorm(scale=np.ones(6), bias=np.zeros(6))
    block = dataclasses.replace(block, down=none, norm_attn=first)
    std, product = bounds(block, norm, "gelu", (200, 0))
    worst = witness.largest_found(block, rows_of_norm(norm), "gelu", EPS)
    assert worst.std_mlp == pytest.approx(1)
    assert worst.std_attn <= std <= 1.01 * worst.std_attn
    assert worst.product <= product <= 1.02 * worst.product


def test_one_unit_attains_the_bound():
    """One ReLU along the direction that attention stretches most: a = z there, and the relaxation is exact."""
    block, norm, direction = one_unit()
    _, product = bounds(block, norm, "relu", (200, 0))
    x = normed(direction[None], norm)
    std_attn, std_mlp = forward(block, x, np.ones((1, 1, 1)), PHI["relu"])
    found = float((std_attn * std_mlp)[0])
    assert found == pytest.approx(5.0)  # (1 + 1) for attention, (1 + 1.5) for the unit
    assert found <= product <= 1.02 * found


def one_unit():
    direction = np.array([1.0, -1.0, 1.0, -1.0]) / 2
    outer = np.outer(direction, direction)
    one, zero = np.ones(4), np.zeros(4)
    block = block_of(
        outer[:, None],
        np.eye(4)[None],
        one,
        direction[:, None],
        1.5 * direction[None],
        one,
        value_bias=zero[None],
        output_bias=zero,
        bias_attn=zero,
        up_bias=np.zeros(1),
        down_bias=zero,
    )
    return block, LayerNorm(scale=one, bias=zero), direction


@pytest.mark.parametrize("broken", ["row", "attention", "activation"])
def test_without_a_hypothesis_the_bound_fails(broken):
    """A row off the ellipsoid, attention of row sum 2, an activation that exceeds its argument."""
    block, norm, direction = one_unit()
    _, product = bounds(block, norm, "relu", (200, 0))
    x = normed(direction[None], norm) * (2 if broken == "row" else 1)
    attn = np.full((1, 1, 1), 2.0 if broken == "attention" else 1.0)
    phi = (lambda z: 1.5 * np.maximum(z, 0)) if broken == "activation" else PHI["relu"]
    std_attn, std_mlp = forward(block, x, attn, phi)
    assert (std_attn * std_mlp)[0] > 1.05 * product


@pytest.mark.parametrize("activation", sorted(FLOOR))
def test_what_is_used_of_the_activation(activation):
    """a (z - a) >= 0, a >= -floor and a >= z - floor, in 40 digits; and the floor is reached."""
    phi, floor = EXACT_PHI[activation], mpmath.mpf(FLOOR[activation])
    with mpmath.workdps(40):
        points = [mpmath.mpf(k) / 64 for k in range(-640, 641)]
        least = min(min(phi(z) - z, phi(z)) if z > 0 else min(phi(z), phi(z) - z) for z in points)
        assert all(phi(z) * (z - phi(z)) >= 0 for z in points)
        assert -floor * (1 + mpmath.mpf(10) ** -9) <= least <= -floor * mpmath.mpf("0.999")


def test_the_quadratic_form_dominates_and_the_certificate_is_arithmetic():
    """Against 40 digits: the form at true points, and its largest eigenvalue, on both sides of the cut."""
    rng = np.random.default_rng(5)
    block, norm = random_block(rng, width=4, units=5)
    known = reachable(block, rows_of_norm(norm), "gelu", EPS)
    shares = search.std_shares(np.stack([gram.mid for gram in known.grams]))
    std = certificate.largest_std(known, shares)
    form = relaxation.Form.of(known, std, np.float64)
    multipliers = dataclasses.replace(
        relaxation.start(form),
        sphere=-0.1,
        low=rng.uniform(0, 0.2, 5),
        high=rng.uniform(0, 0.2, 5),
        side=rng.normal(size=4),
    )
    certified = certificate.product_bound(known, multipliers, std)
    with mpmath.workdps(40):
        exact = exact_bound(block, norm, multipliers, mpmath.mpf(std))
    assert exact <= certified <= exact * (1 + mpmath.mpf("1e-5"))
    checked = 0
    for _ in range(200):
        x = normed(rng.standard_normal((3, 4)), norm)
        attn = random_attention(rng, 2, 3)
        u = x + sum(
            attn[h] @ (x @ block.attn.value.kernel[:, h] + block.attn.value.bias[h]) @ block.attn.output.kernel[h]
            for h in range(2)
        )
        u = u + block.attn.output.bias
        right_side = (u - u.mean(-1, keepdims=True)) @ multipliers.side >= 0
        stds = forward(block, x, attn, PHI["gelu"])
        assert np.all((stds[0] * stds[1])[right_side] <= certified)
        checked += int(right_side.sum())
    assert checked > 50


def exact_bound(block, norm, multipliers, std):
    """Theorem 2's bound in mpmath, from the formulas of docs/every-input.md and not from the library's arrays."""
    mp = lambda array: mpmath.matrix(np.atleast_2d(np.asarray(array)).tolist())  # noqa: E731
    d, f = 4, 5
    centring = mpmath.eye(d) - mpmath.ones(d) / d
    source, mean = mpmath.sqrt(d) * mpmath.diag(norm.scale.tolist()), mp(norm.bias)
    maps = [source * centring]
    total = mean
    for h in range(2):
        mixer = mp(block.attn.value.kernel[:, h]) * mp(block.attn.output.kernel[h])
        maps.append(source * mixer * centring)
        total = total + mean * mixer + mp(block.attn.value.bias[h]) * mp(block.attn.output.kernel[h])
    maps.append((total + mp(block.attn.output.bias)) * centring)
    nu = [mpmath.mpf(x) for x in relaxation.shares_of(multipliers)]
    gram = mpmath.zeros(d)
    for piece, share in zip(maps, nu, strict=False):
        gram += piece.T * piece / share
    # Any regular root of the Gram matrix; the constant direction, which no row has, gets a little.
    root = mpmath.cholesky(gram + mpmath.ones(d) * mpmath.mpf("1e-9"))
    gain = mpmath.diag(block.norm_attn.scale.tolist())
    up, down = centring * gain * mp(block.up.kernel), mp(block.down.kernel) * centring
    shift = mp(block.norm_attn.bias) * mp(block.up.kernel) + mp(block.up.bias)
    offset = (mp(block.norm_attn.bias) + mp(block.down.bias)) * centring
    floor, last = mpmath.mpf(FLOOR["gelu"]), std / mpmath.sqrt(nu[-1])

    def quadratic(v):
        g, u, s = v[0:d, 0], root * v[d : 2 * d, 0], last * v[2 * d, 0]
        ell = (mp(multipliers.side) * u)[0]
        value = 2 * (offset * g)[0] * s + 2 * (u.T * centring * gain * centring * g)[0]
        out, pre = down * g, up.T * u + shift.T * s
        for k in range(f):
            tau, low, high = (
                mpmath.mpf(x) for x in (np.exp(multipliers.curve[k]), multipliers.low[k], multipliers.high[k])
            )
            value += (out[k] + tau * pre[k] / 2 + (low + high) * ell) ** 2 / tau
            value += 2 * ell * (floor * s * (low + high) - high * pre[k])
        centred = centring * u
        return value - mpmath.mpf(multipliers.sphere) * ((centred.T * centred)[0] / d - s * s)

    size = 2 * d + 1
    unit = [mpmath.matrix([int(i == j) for i in range(size)]) for j in range(size)]
    whole = mpmath.matrix(size)
    for i in range(size):
        for j in range(size):
            whole[i, j] = (quadratic(unit[i] + unit[j]) - quadratic(unit[i] - unit[j])) / 4
    value = max(mpmath.eigsy(whole, eigvals_only=True))
    length = value + abs(mpmath.mpf(multipliers.sphere)) * mpmath.mpf(EPS) / 2
    return mpmath.sqrt(length**2 / d + mpmath.mpf(EPS) * std**2)


def test_the_slopes_are_derivatives():
    """Central differences of the largest eigenvalue, field by field."""
    rng = np.random.default_rng(7)
    block, norm = random_block(rng)
    form = relaxation.Form.of(reachable(block, rows_of_norm(norm), "gelu", EPS), 5.0, np.float64)
    at = dataclasses.replace(
        relaxation.start(form),
        sphere=0.2,
        low=rng.uniform(0, 1, 10),
        high=rng.uniform(0, 1, 10),
        side=rng.normal(size=6),
    )
    values, vectors = np.linalg.eigh(relaxation.matrix(form, at))
    found = relaxation.slopes(form, at, vectors[:, -1:], np.ones(1), values[-1:])
    for name in search.FIELDS:
        step = 1e-6 * (rng.normal(size=np.shape(getattr(at, name))) if name != "sphere" else 1.0)
        ends = [
            np.linalg.eigvalsh(
                relaxation.matrix(form, dataclasses.replace(at, **{name: getattr(at, name) + sign * step}))
            )
            for sign in (1, -1)
        ]
        assert (ends[0][-1] - ends[1][-1]) / 2 == pytest.approx(
            np.sum(getattr(found, name) * step), rel=1e-3, abs=1e-10
        )


SMALL = {"vocab": 40, "width": 12, "layers": 2, "heads": 2, "mlp_width": 16, "max_length": 16}


def drawn(config, seed, std=0.4, others=0.2):
    """A random encoder whose gains and biases are random too; by numpy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        values = rng.standard_normal(shape.shape)
        if path.endswith(("bias", "scale")):
            return jnp.asarray(others * values + path.endswith("scale"), jnp.float64)
        return jnp.asarray(std * values, jnp.float64)

    return map_named(leaf, jax.eval_shape(lambda: init_encoder(config, jax.random.key(0))))


def with_leaves(model, **leaves):
    """The model with some leaves of its blocks replaced: attn__output__bias=..."""
    names = {f"blocks.{name.replace('__', '.')}": value for name, value in leaves.items()}
    return map_named(lambda path, leaf: names.get(path, leaf), model)


def stds_on(model, tokens):
    batch = jaxsmooth.Batch(tokens, jnp.zeros_like(tokens), jnp.ones(tokens.shape, bool))
    _, trace = jaxsmooth.encode(model, batch)
    return trace


@pytest.mark.parametrize("kind", [{}, {"embedding_width": 6, "shared_layers": True}])
def test_a_model_on_texts_stays_below(kind):
    """Every token of every random text, in layers after an embedding's norm, a projection, and shared layers."""
    model = drawn(EncoderConfig(**SMALL, **kind), 0)
    layers = hypothesis_for_every_input(model, steps=(20, 10))
    assert [layer.layer for layer in layers] == [1, 2]
    trace = stds_on(model, jnp.asarray(np.random.default_rng(2).integers(0, 40, (64, 16)), jnp.int32))
    for place, layer in enumerate(layers):
        std_attn, std_mlp = np.asarray(trace.std_attn[place]), np.asarray(trace.std_mlp[place])
        assert std_attn.max() <= layer.std_attn
        assert (std_attn * std_mlp).max() <= layer.product
        assert layer.product_found <= layer.product
        # Reached by an adversary, not by texts; still of their size.
        assert layer.product <= 40 * (std_attn * std_mlp).max()


def test_a_hypothesis_that_can_hold_is_not_refuted():
    """A large bias that all tokens share makes the stds large: v < 1 on a text, and the verdict is open."""
    push = 20.0 * jnp.where(jnp.arange(12) % 2, 1.0, -1.0)[None]
    model = with_leaves(
        drawn(EncoderConfig(**{**SMALL, "layers": 1}), 0, std=0.05, others=0.0), attn__output__bias=push
    )
    (layer,) = hypothesis_for_every_input(model, steps=(20, 10))
    trace = stds_on(model, jnp.arange(2, 10, dtype=jnp.int32)[None])
    smallest = float(trace.std_attn.min() * trace.std_mlp.min())
    block = jax.tree.map(lambda leaf: np.asarray(leaf[0]), model.blocks)
    heads = [block.attn.value.kernel[:, h] @ block.attn.output.kernel[h] for h in range(2)]
    roots = [np.linalg.norm(a - a.mean(0), 2) for a in np.asarray(trace.attn[0, 0])]
    norms = [np.linalg.norm(side.kernel, 2) for side in (block.up, block.down)]
    threshold = (1 + 1.13 * norms[0] * norms[1]) * (
        1 + sum(root * np.linalg.norm(w, 2) for root, w in zip(roots, heads, strict=True))
    )
    assert smallest > threshold  # the hypothesis holds on this text
    assert layer.threshold <= threshold
    assert (layer.verdict, layer.verdict_paper) == ("open", "open")
    assert layer.product >= layer.product_found >= 0.9 * smallest


def test_small_weights_are_refuted():
    """Near-zero weights: stds are at most next to 1, the threshold is above 1 plus the norms' product."""
    model = drawn(EncoderConfig(**{**SMALL, "layers": 1}), 0, std=0.02, others=0.0)
    (layer,) = hypothesis_for_every_input(with_leaves(model, norm_mlp__scale=jnp.full((1, 12), 1.5)))
    assert layer.verdict == "never"
    assert layer.product < 1.5 <= layer.threshold


def test_the_threshold_is_one_from_below():
    model = drawn(EncoderConfig(**SMALL), 3)
    for layer in hypothesis_for_every_input(model, steps=(1, 0)):
        at = layer.layer - 1
        up, down = (np.linalg.norm(side.kernel[at], 2) for side in (model.blocks.up, model.blocks.down))
        slope = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
        gains = np.prod([np.abs(norm.scale[at]).max() for norm in (model.blocks.norm_attn, model.blocks.norm_mlp)])
        assert layer.threshold == pytest.approx((1 + slope * up * down) * gains, rel=1e-6)
        assert layer.threshold <= (1 + slope * up * down) * gains * (1 + 1e-12)
        assert layer.threshold <= layer.threshold_model


def test_pre_norm_models_are_refused():
    with pytest.raises(ConfigError, match="pre-LN blocks"):
        hypothesis_for_every_input(drawn(EncoderConfig(**SMALL, placement="pre"), 0))


def test_stored_bounds_are_found_by_the_weights():
    model = drawn(EncoderConfig(**SMALL), 0)
    digest = stored.weights_digest(model)
    assert stored_for_every_input(model) is None
    other_words = map_named(lambda path, leaf: leaf + 1 if path == "embeddings.word" else leaf, model)
    assert stored.weights_digest(other_words) == digest
    other_down = with_leaves(model, down__kernel=model.blocks.down.kernel.at[1, 0, 0].add(1e-3))
    assert stored.weights_digest(other_down) != digest


def test_what_is_stored_is_whole_and_consistent():
    """Every layer of a model, in order, certified above what was found, the published norm's threshold one number."""
    for layers in stored._table().values():
        found = [LayerForEveryInput(**layer) for layer in layers]
        assert [layer.layer for layer in found] == list(range(1, len(found) + 1))
        assert all(layer.product_found <= layer.product for layer in found)
        assert len({layer.threshold_paper for layer in found}) == 1
        assert "never" in {layer.verdict for layer in found}
