"""The certified basin of collapse: a separate numpy encoder starts inside it and must end in equal tokens."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.optimize
from scipy.special import softmax
from support.experiments import load as experiment
from support.plain_blocks import Plain

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.params import init_encoder
from jaxsmooth.errors import ConfigError, DivergedError, OptionError, ShapeError
from jaxsmooth.theory import Basin, certified_basin
from jaxsmooth.theory.basin import certificate
from jaxsmooth.theory.basin.gauges import Frames
from jaxsmooth.theory.basin.matrices import exact, pooled_norm
from jaxsmooth.theory.basin.row_map import row_map
from jaxsmooth.types import map_named

LENGTHS = (1, 2, 7, 64)
WIDTH = 16


@functools.cache
def shaped(layers: int, width: int):
    """An encoder of shapes: its initialisation is not compiled."""
    config = EncoderConfig(vocab=9, width=width, layers=layers, heads=2, mlp_width=2 * width, max_length=8)
    return jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))


def encoder(seed: int, *, layers: int = 1, shift: float = 3.0, kernel: float = 0.3, width: int = WIDTH):
    """A random encoder with a common shift in front of both LayerNorms: their stds are about `shift`."""
    model, rng = shaped(layers, width), np.random.default_rng(seed)
    sizes = {"attn.output.bias": shift, "down.bias": shift, "up.bias": 0.5}

    def draw(name: str, leaf):
        if name.endswith("scale"):
            return np.ones(leaf.shape, np.float32)
        size = kernel * 4 / width**0.5 if name.endswith("kernel") else sizes.get(name, 0.3)
        return np.asarray(size * rng.standard_normal(leaf.shape), np.float32)

    return dataclasses.replace(model, blocks=map_named(draw, model.blocks))


def without_biases(model):
    silent = map_named(lambda name, leaf: 0 * leaf if name.endswith("bias") else leaf, model.blocks)
    return dataclasses.replace(model, blocks=silent)


@functools.cache
def setting(seed: int, layers: int = 1, layer: int | None = None, std: float | None = None) -> tuple[Plain, Basin]:
    model = encoder(seed, layers=layers)
    return Plain.of(model, layer, std), certified_basin(model, layer=layer, std=std)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def directions(rng: np.random.Generator, basin: Basin, tokens: int, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Displacements of the tokens, each of length 1 at most, [count T D]: random and extremal."""
    width = len(basin.point)
    yield "random", unit(rng.standard_normal((count, tokens, width)))
    axis = unit(rng.standard_normal((count, 1, width)))
    yield "two clusters", axis * rng.choice([-1.0, 1.0], (count, tokens, 1))
    alone = np.ones((count, tokens, 1))
    alone[:, 0] = -1
    yield "one against all", axis * alone
    for name, root in (("differences", basin.root), ("mean", basin.root_mean)):
        leading = np.linalg.svd(root)[0][:, rng.integers(0, 3, count)].T[:, None]
        yield f"{name}, one direction", np.broadcast_to(leading, (count, tokens, width))
        yield f"{name}, two clusters", leading * rng.choice([-1.0, 1.0], (count, tokens, 1))


def apart(x: np.ndarray, root: np.ndarray) -> np.ndarray:
    """The largest |x_i - x_j|_P, [B]."""
    moved = (x - x[:, :1]) @ root
    squares = np.sum(moved**2, axis=-1)
    pairs = squares[:, :, None] + squares[:, None] - 2 * moved @ moved.swapaxes(1, 2)
    return np.sqrt(np.maximum(pairs, 0).max(axis=(1, 2)))


def escapes(plain: Plain, basin: Basin, x: np.ndarray, passes: int = 400) -> int:
    """How many of the sentences have not reached consensus, to 1e-9 of where they started, in so many passes."""
    scale = np.linalg.norm(basin.point)
    for _ in range(passes):
        x = plain.once(x)
        far = np.max(np.linalg.norm(x - x[:, :1], axis=-1), axis=1)
        if np.all(far <= 1e-9 * scale):
            return 0
    return int(np.sum(far > 1e-9 * scale))


CASES = [(0, 1, 1, None), (1, 2, None, None), (2, 1, 1, 4.0)]


@pytest.mark.parametrize("case", CASES, ids=["layer", "stack", "imposed std"])
def test_every_start_inside_reaches_consensus(case):
    plain, basin = setting(*case)
    assert basin.radius > 0.01
    assert basin.spectral_radius < basin.rate_at_point <= basin.rate < 1
    rng = np.random.default_rng(0)
    for tokens in LENGTHS:
        for _, moves in directions(rng, basin, tokens, 3):
            assert escapes(plain, basin, basin.point + basin.radius * moves) == 0


@pytest.mark.parametrize("case", CASES, ids=["layer", "stack", "imposed std"])
def test_the_adapted_set_is_larger_and_falls_at_the_rate(case):
    """Mean and differences at their bounds, in the adapted norms; once the system is settled each pass contracts."""
    plain, basin = setting(*case)
    rng = np.random.default_rng(1)
    for tokens in (2, 7):
        for _, moves in directions(rng, basin, tokens, 3):
            moves = moves - moves.mean(axis=1, keepdims=True)
            size = apart(moves, basin.root)[:, None, None]
            mean = unit(rng.standard_normal((len(moves), 1, WIDTH)) @ np.linalg.inv(basin.root_mean).T)
            mean *= basin.mean_radius / np.linalg.norm(mean @ basin.root_mean, axis=-1, keepdims=True)
            x = basin.point + mean + moves * np.where(size > 0, basin.diameter / np.where(size > 0, size, 1), 0)
            for _ in range(40):
                x = plain.once(x)
            before = apart(x, basin.root)
            after = apart(plain.once(x), basin.root)
            seen = before > 1e-7
            assert np.all(after[seen] <= basin.rate * before[seen] * (1 + 1e-6))
            assert escapes(plain, basin, x) == 0


@pytest.mark.parametrize("case", CASES, ids=["layer", "stack", "imposed std"])
def test_the_rate_tends_to_the_spectral_radius(case):
    plain, basin = setting(*case)
    moves, growth = unit(np.random.default_rng(2).standard_normal((1, 5, WIDTH))), []
    mean = basin.point
    for _ in range(80):
        x = plain.once(mean + 1e-6 * moves)
        mean = x.mean(axis=1, keepdims=True)
        size = np.linalg.norm(x - mean)
        growth.append(np.log(size / (1e-6 * np.linalg.norm(moves - moves.mean(axis=1, keepdims=True)))))
        moves = (x - mean) / size
    assert np.exp(np.mean(growth[40:])) == pytest.approx(basin.spectral_radius, rel=0.02)


@functools.cache
def pieces(seed: int):
    """The comparison of a small layer's ball with what follows, as the library builds it, and its model."""
    model = encoder(seed, width=6)
    kept = {}
    whole = certificate._steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "_steps", lambda *given: kept.setdefault("steps", whole(*given)))
        basin = certified_basin(model)
    return Plain.of(model, None, None), basin, kept["steps"][0]


@pytest.mark.parametrize("seed", [3])
def test_no_search_finds_a_step_beyond_the_comparison(seed):
    """BFGS on the input makes the next pass's differences, or mean, as large as it can; tokens inside by a squash."""
    plain, basin, step = pieces(seed)
    rng, tokens = np.random.default_rng(seed), 3
    bounds = step(basin.radius, 2 * basin.radius)

    def inside(free: np.ndarray) -> np.ndarray:
        moves = free.reshape(tokens, 6)
        return basin.point + basin.radius * moves / np.maximum(np.linalg.norm(moves, axis=1, keepdims=True), 1)

    def ends(free: np.ndarray) -> tuple[float, float]:
        after = plain.once(inside(free)[None])
        return float(np.linalg.norm((after[0].mean(axis=0) - basin.point) @ basin.root_mean)), apart(after, basin.root)[
            0
        ]

    for which in (0, 1):
        found = [
            -scipy.optimize.minimize(
                lambda free, which=which: -ends(free)[which], rng.standard_normal(tokens * 6), options={"maxiter": 8}
            ).fun
            for _ in range(2)
        ]
        assert max(found) <= bounds[which]
        assert max(found) > 0.05 * bounds[which]


def test_heads_tilt_together_no_farther_than_said():
    """sum_h (c_h - mean) W_h of the real attention in a ball, clusters and random tokens; and the bound is not idle."""
    plain, basin, step = pieces(3)
    w, ratios = plain.blocks[0], []
    for size in (0.03, 0.3, 1.0):
        for _, moves in directions(np.random.default_rng(0), basin, 5, 40):
            x = basin.point + size * moves
            q, k = (np.einsum("btd,dnh->bnth", x, w[f"{s}kernel"]) + w[f"{s}bias"][:, None] for s in "qk")
            attn = softmax(q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), axis=-1)
            mixed = np.einsum("bntj,bjd,dnh,nhe->bte", attn - 1 / 5, x, w["vkernel"], w["okernel"])
            ratios.append(np.linalg.norm(mixed, axis=-1).max() / step._tilted(step.value, size, 2 * size))
    assert max(ratios) <= 1
    assert max(ratios) > 0.2


def test_the_norm_of_all_heads_together_is_the_map_s_own():
    """Against singular values of the map written out; far below the sum over heads, and zero rows have a zero norm."""
    rng = np.random.default_rng(0)
    rows, maps = rng.standard_normal((8, 12)), rng.standard_normal((8, 12, 12))
    norms = np.linalg.norm(maps, 2, axis=(1, 2))
    found = pooled_norm(exact(rows), [exact(one) for one in maps], norms)
    whole = np.einsum("ha,hbe->abe", rows, maps).reshape(144, 12)
    assert np.linalg.norm(whole, 2) <= found <= np.linalg.norm(whole, 2) * (1 + 1e-4)
    assert found < 0.6 * np.sum(norms * np.linalg.norm(rows, axis=1))
    assert pooled_norm(exact(0 * rows), [exact(one) for one in maps], norms) < 1e-300


@pytest.mark.parametrize("seed", [3, 4])
def test_the_derivative_strays_no_farther_than_said(seed):
    """Jacobians of the row map by jax, at random rows at every distance, against `stray`; and the bound is not idle."""
    _, basin, _ = pieces(seed)
    model = encoder(seed, width=6)
    block = certificate._checked(model, 1, None, (0.5, 0.5))[0][0]
    width, p = 6, basin.root
    frames = Frames(row_map(block, basin.point, 1e-12, None), exact(np.linalg.inv(p)), exact(np.eye(width)))
    reach = frames.of_differences(p)

    def row(u):
        def norm(v, of):
            v = v - jnp.mean(v)
            return v / jnp.sqrt(jnp.mean(v * v) + 1e-12) * of.scale + of.bias

        y = norm(u, block.norm_attn)
        wide = jax.nn.gelu(y @ block.up.kernel + block.up.bias, approximate=False)
        return norm(y + wide @ block.down.kernel + block.down.bias, block.norm_mlp)

    mixer = np.einsum("dnh,nhe->de", block.attn.value.kernel, block.attn.output.kernel)
    bias = np.einsum("nh,nhe->e", block.attn.value.bias, block.attn.output.kernel) + block.attn.output.bias
    base = basin.point + basin.point @ mixer + bias
    derivative = jax.jit(jax.vmap(jax.jacobian(row)))
    ratios = []
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-2, 0.1, 0.5):
        moves = size * unit(rng.standard_normal((200, width)))
        with jax.enable_x64(True):
            change = np.asarray(derivative(base + moves) - derivative(base[None])).swapaxes(1, 2)
        norms = np.linalg.norm(np.linalg.inv(p) @ change @ p, 2, axis=(1, 2))
        assert np.all(norms <= reach.stray(size) * (1 + 1e-9))
        ratios.append(norms.max() / reach.stray(size))
    assert max(ratios) > 0.1


@pytest.mark.parametrize("std", [None, 4.0])
def test_far_away_there_is_no_bound_and_no_error(std):
    """With an imposed std nothing ends the formulas before their powers overflow."""
    model = encoder(2)
    block = certificate._checked(model, 1, None, (0.5, 0.5))[0][0]
    eye = exact(np.eye(WIDTH))
    frames = Frames(row_map(block, certified_basin(model, std=std).point, 1e-12, std), eye, eye)
    with np.errstate(all="ignore"):
        for reach in (frames.of_differences(np.eye(WIDTH)), frames.of_mean(np.eye(WIDTH))):
            strays = [reach.stray(10.0**power) for power in range(-3, 309)]
            assert strays == sorted(strays)
            assert 0 < strays[0] < strays[-1] == np.inf


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("Eigenvalues did not converge"), OverflowError()])
def test_arithmetic_that_fails_certifies_nothing(monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(certificate, "adapted_roots", fails)
    basin = certified_basin(encoder(0))
    assert (basin.radius, basin.rate) == (0, np.inf)
    assert basin.limit == f"the arithmetic fails: {error}" if str(error) else "OverflowError" in basin.limit


def test_the_point_is_enclosed():
    """Output, phi', phi'' and phi''' / 2, M: against mpmath in 50 digits."""
    model = encoder(5, width=4)
    block = certificate._checked(model, 1, None, (0.5, 0.5))[0][0]
    x = np.random.default_rng(5).standard_normal(4)
    at = row_map(block, x, 1e-12, None)
    with mpmath.workdps(50):
        after, law = _in_digits(block, x)
        for ball, exact_value in ((at.after, after), (at.law(), law)):
            off = np.array((mpmath.matrix(ball.mid.tolist()) - exact_value).tolist(), float)
            assert np.linalg.norm(off) <= ball.error < 1e-9


def _in_digits(block, x: np.ndarray) -> tuple[mpmath.matrix, mpmath.matrix]:
    """What comes out of the row x, and M, in the current precision."""
    m = lambda array: mpmath.matrix(np.atleast_2d(array).tolist())  # noqa: E731
    width = len(x)

    def norm(row: mpmath.matrix, of) -> tuple[mpmath.matrix, mpmath.matrix]:
        mean = sum(row) / width
        centred = row - mpmath.ones(1, width) * mean
        std = mpmath.sqrt(sum(c * c for c in centred) / width + mpmath.mpf(1e-12))
        gain = mpmath.diag([mpmath.mpf(float(s)) for s in of.scale])
        centring = mpmath.eye(width) - mpmath.ones(width) / width
        return centred / std * gain + m(of.bias), (centring - centred.T * centred / (width * std**2)) / std * gain

    value, output = m(block.attn.value.kernel.reshape(width, -1)), m(block.attn.output.kernel.reshape(-1, width))
    u = m(x) + (m(x) * value + m(block.attn.value.bias.reshape(1, -1))) * output + m(block.attn.output.bias)
    y, first = norm(u, block.norm_attn)
    pre = y * m(block.up.kernel) + m(block.up.bias)
    wide = mpmath.matrix(1, len(pre))
    slopes = []
    for k in range(len(pre)):
        wide[k] = pre[k] * mpmath.ncdf(pre[k])
        slopes.append(mpmath.ncdf(pre[k]) + pre[k] * mpmath.npdf(pre[k]))
    z = y + wide * m(block.down.kernel) + m(block.down.bias)
    after, second = norm(z, block.norm_mlp)
    mlp = mpmath.eye(width) + m(block.up.kernel) * mpmath.diag(slopes) * m(block.down.kernel)
    return after, first * mlp * second


def bistable():
    """Tokens along +a or -a, each a fixed point, which see their own kind only: x -> LN(x + 3 x a^T a / D + a)."""
    model, axis = without_biases(encoder(7, kernel=0.02)), np.where(np.arange(WIDTH) % 2, 1.0, -1.0)
    towards = np.zeros((1, WIDTH, 2, WIDTH // 2))
    towards[0, :, 0, 0] = axis / WIDTH
    output = np.zeros((1, 2, WIDTH // 2, WIDTH))
    output[0, 0, 0] = 3 * axis
    given = {
        "attn.query.kernel": 4 * towards,
        "attn.key.kernel": 4 * towards,
        "attn.value.kernel": towards,
        "attn.output.kernel": output,
        "attn.output.bias": axis[None],
    }
    blocks = map_named(lambda name, leaf: np.asarray(given.get(name, leaf), np.float32), model.blocks)
    return dataclasses.replace(model, blocks=blocks), axis


def test_far_outside_the_basin_ends():
    """The same ball a power of ten larger holds sentences that stay in two clusters: a radius is needed."""
    model, axis = bistable()
    plain, basin = Plain.of(model, None, None), certified_basin(model, start=axis)
    assert basin.radius > 0.01
    moves = np.where(np.arange(6) % 2, 1.0, 0.0)[:, None] * -unit(axis)
    assert escapes(plain, basin, basin.point + basin.radius * moves[None]) == 0
    sizes = basin.radius * 10.0 ** np.arange(1, 4)
    assert any(escapes(plain, basin, basin.point + size * moves[None]) for size in sizes)


def test_where_consensus_repels_nothing_is_certified():
    model = without_biases(encoder(8, kernel=0.1))
    basin = certified_basin(model, std=0.6, start=np.zeros(WIDTH))
    assert basin.radius == 0
    assert basin.spectral_radius > 1
    assert "does not attract" in basin.limit
    moves = 1e-6 * unit(np.random.default_rng(8).standard_normal((1, 3, WIDTH)))
    x = moves
    for _ in range(5):
        x = Plain.of(model, None, 0.6).once(x)
    assert apart(x, np.eye(WIDTH)) > apart(moves, np.eye(WIDTH))


def test_equal_tokens_that_do_not_settle_are_said_to(monkeypatch):
    monkeypatch.setattr(certificate, "PASSES", 30)
    basin = certified_basin(encoder(8, kernel=0.1), std=0.6)
    assert (basin.radius, basin.period) == (0, 0)
    assert "settle in no cycle" in basin.limit


def test_other_weights_have_another_point():
    """Weights rounded to bfloat16 have their fixed point elsewhere: the certificate is about the given weights."""
    _, one = setting(0, 1, 1)
    model = encoder(0)
    moved = map_named(lambda _, leaf: leaf.astype(jnp.bfloat16).astype(np.float32), model.blocks)
    other = certified_basin(dataclasses.replace(model, blocks=moved))
    assert np.linalg.norm(one.point - other.point) > 1e-4
    assert one.radius == pytest.approx(other.radius, rel=0.1)


def test_equal_tokens_may_take_turns():
    """x -> -x: a cycle of two passes is certified as one of the blocks repeated twice."""
    model = without_biases(encoder(9, kernel=0.02))
    given = {
        "attn.value.kernel": -np.diag(np.append(np.linspace(1.2, 3.0, WIDTH - 1), 6.0)).reshape(1, WIDTH, 2, -1),
        "attn.output.kernel": np.eye(WIDTH).reshape(1, 2, -1, WIDTH),
    }
    blocks = map_named(lambda name, leaf: np.asarray(given.get(name, leaf), np.float32), model.blocks)
    turned = dataclasses.replace(model, blocks=blocks)
    basin = certified_basin(turned, start=np.random.default_rng(0).standard_normal(WIDTH))
    assert basin.period == 2
    assert basin.radius > 0
    moves = unit(np.random.default_rng(1).standard_normal((5, 7, WIDTH)))
    assert escapes(Plain.of(turned, None, None), basin, basin.point + basin.radius * moves) == 0


def test_what_it_does_not_cover_is_refused():
    model = encoder(0)
    for fields, text in (
        ({"placement": "pre"}, "got pre-LN blocks"),
        ({"causal": True}, "got attention that is masked or positional"),
        ({"activation": "relu"}, "got activation 'relu'"),
    ):
        other = dataclasses.replace(model, config=dataclasses.replace(model.config, **fields))
        with pytest.raises(ConfigError, match=text):
            certified_basin(other)
    for options, text in (
        ({"layer": 2}, "layer must be a whole number from 1 to 1"),
        ({"layer": True}, "layer must be a whole number"),
        ({"std": 0.0}, "std must be a positive number"),
        ({"margins": (0.5, 1.0)}, "margins must lie between 0 and 1"),
    ):
        with pytest.raises(OptionError, match=text):
            certified_basin(model, **options)
    with pytest.raises(ShapeError, match="start must be 16 finite numbers"):
        certified_basin(model, start=np.zeros(3))
    broken = dataclasses.replace(model, blocks=map_named(lambda _, leaf: leaf * np.nan, model.blocks))
    with pytest.raises(DivergedError, match="not all finite"):
        certified_basin(broken)


# On the boundary of every ball, of each of seven kinds: 100,198 starts a ball.
STARTS = {1: 4000, 2: 5300, 3: 3600, 7: 1300, 32: 100, 128: 10, 512: 4}
RANDOM = [("random", std) for std in (1.5, 2.0, 4.0)]
REAL = [("minilm-l6", None), *(("minilm-l6", layer) for layer in (2, 3, 5, 6)), ("e5-small-q4", 2), *RANDOM]


@pytest.mark.long
@pytest.mark.parametrize(("name", "which"), REAL, ids=lambda value: str(value or "stack"))
def test_no_start_inside_escapes(name, which):
    """None escapes if differences fall to a hundredth and the tokens stay inside; `which` layer, or imposed std."""
    layer, std = (None, which) if name == "random" else (which, None)
    model = experiment("basin").random_encoder() if name == "random" else jaxsmooth.load(name)[0]
    basin = certified_basin(model, layer=layer, std=std)
    assert basin.radius > 1e-5
    rng, starts = np.random.default_rng(0), 0
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        pass_of = Plain.of(model, layer, std).compiled()
        for tokens, count in STARTS.items():
            for kind, moves in directions(rng, basin, tokens, count):
                off, left = followed(pass_of, basin, moves)
                assert np.all(off <= basin.radius), f"{kind}: a start of {tokens} tokens leaves"
                assert np.all(left <= 0.01), f"{kind}: the differences of {tokens} tokens last"
                starts += len(moves)
    assert starts == 7 * sum(STARTS.values()) >= 100_000


def followed(once, basin: Basin, moves: np.ndarray, passes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Of starts on the boundary: the farthest token's distance, and the differences over those at first."""
    x = jnp.asarray(basin.point + basin.radius * moves)
    floor = 1e-9 * basin.radius
    start = np.asarray(apart(np.asarray(x), basin.root)) + 100 * floor
    for _ in range(passes):
        x = once(x)
        left = apart(np.asarray(x), basin.root) / start
        off = np.linalg.norm(np.asarray(x) - basin.point, axis=-1).max(axis=1)
        if np.all(left <= 0.01) and np.all(off <= basin.radius):
            break
    return off, left
