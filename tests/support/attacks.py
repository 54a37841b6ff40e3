"""Statements that gradient ascent attacks all at once: each owns its parameters, the objective is their sum.

Adam works entry by entry, so climbing the sum of the logarithms is climbing each.
"""

import jax
import jax.numpy as jnp

from support.search import LIPSCHITZ, C, D, J, N, frobenius

LAYERS = 3
STRENGTH = 0.3
Params = dict[str, jax.Array]
SQUARE = {"x": (N, D), "w": (D, D)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "linear": SQUARE,
    "activation": {"x": (N, D)},
    "sum": {"x": (N, D), "other": (N, D), "factors": (2,)},
    "tokens": {"logits": (N, N)},
    "columns": {"logits": (N, N)},
    "entries": {"logits": (N, N)},
    "ergodicity": {"logits": (N, N)},
    "cosine": {"x": (N, D)},
    "concatenation": {"x": (LAYERS, N, D), "w": (LAYERS, D, D)},
    "maximum": {"x": (LAYERS, N, D)},
    "contranorm": {"x": (N, D), "logits": (N, N)},
    "floor": {"x": (N, D), "logits": (N, N), "mixer": (D, D), "up": (D, D), "down": (D, D)},
}
# An orthonormal basis of what is orthogonal to 1.
BASIS = jnp.linalg.eigh(J)[1][:, 1:]


def norm(matrix: jax.Array) -> jax.Array:
    """Spectral norm; the top eigenvalue of the Gram matrix has a slope even where it is repeated."""
    return jnp.sqrt(jnp.linalg.eigvalsh(matrix.T @ matrix)[-1] + 1e-300)


def attention(p: Params) -> jax.Array:
    return jax.nn.softmax(p["logits"])


def apart(x: jax.Array) -> jax.Array:
    return frobenius(J @ x)


def linear(p: Params) -> jax.Array:
    return apart(p["x"] @ p["w"]) / (norm(p["w"]) * apart(p["x"]))


def activation(p: Params) -> jax.Array:
    return apart(jax.nn.gelu(p["x"], approximate=False)) / (LIPSCHITZ["gelu"] * apart(p["x"]))


def total(p: Params) -> jax.Array:
    a, b = p["factors"]
    return apart(a * p["x"] + b * p["other"]) / (jnp.abs(a) * apart(p["x"]) + jnp.abs(b) * apart(p["other"]))


def tokens(p: Params) -> jax.Array:
    return norm(J @ attention(p)) / (N / 2) ** 0.5


def columns(p: Params) -> jax.Array:
    return norm(J @ attention(p)) / jnp.sqrt(jnp.max(jnp.sum(attention(p), axis=0)))


def entries(p: Params) -> jax.Array:
    return norm(J @ attention(p)) / apart(attention(p))


def ergodicity(p: Params) -> jax.Array:
    a = attention(p)
    tau = jnp.max(jnp.sum(jnp.abs(a[:, None] - a[None]), axis=-1)) / 2
    return norm(J @ a) / ((N / 2) ** 0.5 * tau)


def cosine(p: Params) -> jax.Array:
    length = jnp.sqrt(jnp.sum(p["x"] ** 2, axis=1))
    unit = p["x"] / length[:, None]
    mean = (jnp.sum(unit @ unit.T) - N) / (N * (N - 1))
    least = jnp.sort(length)
    return (1 - mean) * (N - 1) * least[0] * least[1] / apart(p["x"]) ** 2


def together(p: Params) -> jax.Array:
    return jnp.sqrt(sum(apart(x) ** 2 for x in p["x"]))


def concatenation(p: Params) -> jax.Array:
    fused = sum(x @ w for x, w in zip(p["x"], p["w"], strict=True))
    return apart(fused) / (norm(p["w"].reshape(LAYERS * D, D)) * together(p))


def maximum(p: Params) -> jax.Array:
    return apart(jnp.max(p["x"], axis=0)) / together(p)


def contranorm(p: Params) -> jax.Array:
    a, x = attention(p), p["x"]
    half = BASIS.T @ (jnp.eye(N) - a) @ BASIS
    least = jnp.linalg.eigvalsh(half + half.T)[0]
    after = apart((1 + STRENGTH) * x - STRENGTH * a @ x)
    return (1 + STRENGTH * least) * apart(x) ** 2 / after**2


def floor(p: Params) -> jax.Array:
    """(1 + sqrt(lambda) s) / (1 + s) over the rate v of a ReLU block with one head, on normalised tokens."""
    x = p["x"] @ C
    x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
    u = (x + attention(p) @ x @ p["mixer"]) @ C
    std_attn = jnp.sqrt(jnp.mean(u**2, axis=1))
    y = u / std_attn[:, None]
    z = (y + jax.nn.relu(y @ p["up"]) @ p["down"]) @ C
    std_mlp = jnp.sqrt(jnp.mean(z**2, axis=1))
    s = jnp.max(jnp.stack([norm(p[name]) for name in ("mixer", "up", "down")]))
    return jnp.min(std_attn) * jnp.min(std_mlp) / ((1 + s) * (1 + s**2))


RATIOS = {
    "linear": linear,
    "activation": activation,
    "sum": total,
    "tokens": tokens,
    "columns": columns,
    "entries": entries,
    "ergodicity": ergodicity,
    "cosine": cosine,
    "concatenation": concatenation,
    "maximum": maximum,
    "contranorm": contranorm,
    "floor": floor,
}


def every_objective(params: dict[str, Params], _: jax.Array) -> jax.Array:
    return sum(jnp.log(ratio(params[name])) for name, ratio in RATIOS.items())
