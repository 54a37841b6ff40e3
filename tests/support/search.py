"""Gradient ascent on lhs / rhs over inputs and parameters: the search for a counterexample, written independently.

The objectives are in plain jax, differentiable throughout; what they find is then judged by the library.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

N = D = 4
SQUARINGS = 9
RUNGS = ("L4", "L3", "L2b", "L2", "L1", "L0")
J = jnp.eye(N) - 1 / N
C = jnp.eye(D) - 1 / D
LIPSCHITZ = {"relu": 1.0, "gelu": 1.1289041451851547868}


def norm(matrix: jax.Array) -> jax.Array:
    """Spectral norm by repeated squaring: too large by less than a factor rank^(1/2^11), and smooth."""
    gram = matrix.T @ matrix
    log = jnp.zeros(())
    for k in range(SQUARINGS + 1):
        size = jnp.sqrt(jnp.sum(gram**2) + 1e-300)
        gram, log = gram / size, log + jnp.log(size) / 2**k
        gram = gram @ gram
    return jnp.exp(log / 2)


def frobenius(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2) + 1e-300)


def diameter(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.max(jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)) + 1e-300)


def normalised(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    u = x @ C
    std = jnp.sqrt(jnp.mean(u**2, axis=1) + eps)
    return u / std[:, None], std


def draw(key: jax.Array, shapes: dict[str, tuple[int, ...]], spread: float = 0.5) -> dict[str, jax.Array]:
    """Normal parameters, of a random overall scale each."""
    out = {}
    for index, (name, shape) in enumerate(shapes.items()):
        one, two = jax.random.split(jax.random.fold_in(key, index))
        size = jnp.exp(spread * jax.random.normal(two))
        out[name] = size * jax.random.normal(one, shape)
    return out


def climb(
    objective: Callable[[Any, jax.Array], jax.Array], start: Any, which: jax.Array, steps: int, rate: float
) -> tuple[Any, jax.Array]:
    """Adam on log(lhs / rhs) of every restart at once; the best parameters met and their objective.

    `which` holds one number per restart, handed to the objective: which rung to attack.
    """
    # optax adds integers to floats, which the suite's strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        return _climb(objective, start, which, steps, rate)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _climb(
    objective: Callable[[Any, jax.Array], jax.Array], start: Any, which: jax.Array, steps: int, rate: float
) -> tuple[Any, jax.Array]:
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def one(params: Any, which: jax.Array) -> tuple[Any, jax.Array]:
        def step(state: tuple, _: None) -> tuple[tuple, None]:
            params, memory, best, found = state
            value, slope = jax.value_and_grad(objective)(params, which)
            better = value > found
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, best)
            slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), -g, 0), slope)
            change, memory = optimiser.update(slope, memory, params)
            return (optax.apply_updates(params, change), memory, best, jnp.maximum(value, found)), None

        state = (params, optimiser.init(params), params, jnp.asarray(-jnp.inf))
        (_, _, best, found), _ = jax.lax.scan(step, state, None, length=steps)
        return best, found

    return jax.vmap(one)(start, which)


def mixing_objective(params: dict[str, jax.Array], _: jax.Array) -> jax.Array:
    attn = jax.nn.softmax(params["logits"])
    return jnp.log(frobenius(J @ attn @ params["x"]) / (norm(J @ attn) * frobenius(J @ params["x"])))


def layer_norm_objective(params: dict[str, jax.Array], which: jax.Array) -> jax.Array:
    """Against the pairwise bound (0) or against gain / smallest std (1)."""
    y, std = normalised(params["x"], 1e-3)
    gain = jnp.max(jnp.abs(params["scale"]))
    u = params["x"] @ C
    gaps = jnp.sum((u[:, None] - u[None]) ** 2, axis=-1) / (std[:, None] * std[None])
    pairs, smallest = jnp.sqrt(jnp.sum(gaps) / (2 * N)), frobenius(J @ params["x"]) / jnp.min(std)
    return jnp.log(frobenius(J @ (y * params["scale"][None])) / (gain * jnp.where(which == 0, pairs, smallest)))


def collapse_objective(params: dict[str, jax.Array], _: jax.Array) -> jax.Array:
    attn = jax.nn.softmax(params["x"] @ params["coupling"] @ params["x"].T)
    before, after = diameter(params["x"]), diameter(attn @ params["x"] @ params["mixer"])
    return jnp.log(after / (norm(params["mixer"]) * jnp.tanh(norm(params["coupling"]) * before**2 / 4) * before))


VECTORS = ("bias", "scale_attn", "shift", "up_bias", "down_bias", "scale_mlp")
MATRICES = ("x", "logits", "mixer", "up", "down")
BLOCK: dict[str, tuple[int, ...]] = dict.fromkeys(VECTORS, (D,)) | dict.fromkeys(MATRICES, (D, D))


def block_forward(params: dict[str, jax.Array], activation: str) -> dict[str, jax.Array]:
    """A post-LN block of one head with free attention, every intermediate value by name."""
    attn = jax.nn.softmax(params["logits"])
    pre_attn = params["x"] + attn @ params["x"] @ params["mixer"] + params["bias"][None]
    y, std_attn = normalised(pre_attn, 0.0)
    y = y * params["scale_attn"][None] + params["shift"][None]
    phi = {"relu": jax.nn.relu, "gelu": functools.partial(jax.nn.gelu, approximate=False)}[activation]
    pre_mlp = y + phi(y @ params["up"] + params["up_bias"][None]) @ params["down"] + params["down_bias"][None]
    out, std_mlp = normalised(pre_mlp, 0.0)
    out = out * params["scale_mlp"][None]
    return {"attn": attn, "pre_attn": pre_attn, "std_attn": std_attn, "std_mlp": std_mlp, "out": out}


def ladder_objective(activation: str, params: dict[str, jax.Array], which: jax.Array) -> jax.Array:
    """log(actual / rung), the rung chosen by its place in RUNGS."""
    run = block_forward(params, activation)
    actual = frobenius(J @ run["out"]) / frobenius(J @ params["x"])
    return jnp.log(actual) - jnp.log(jnp.stack(_rungs(params, run, LIPSCHITZ[activation])))[which]


def _rungs(params: dict[str, jax.Array], run: dict[str, jax.Array], lipschitz: float) -> list[jax.Array]:
    up, down, mixer, gamma = params["up"], params["down"], params["mixer"], params["scale_attn"][:, None]
    gains = [jnp.max(jnp.abs(params[name])) for name in ("scale_attn", "scale_mlp")]
    mlp = 1 + lipschitz * norm(up) * norm(down)
    skew = norm(gamma * (jnp.eye(D) + up @ down / 2) @ C) + (lipschitz - 0.5) * norm(gamma * up) * norm(down @ C)
    f = jnp.minimum(skew, gains[0] * mlp) * gains[1]
    mixing = 1 + norm(J @ run["attn"]) * norm(mixer)
    p = 1 / (run["std_attn"] * run["std_mlp"])
    laplacian = (jnp.diag(p) * jnp.sum(p) - jnp.outer(p, p)) / N
    eye = jnp.eye(N * D)
    attended = (eye + jnp.kron(run["attn"], mixer.T)) @ jnp.kron(J, jnp.eye(D))
    moved = jnp.kron(jnp.eye(N), C) @ attended
    operator = norm(moved.T @ jnp.kron(laplacian, jnp.eye(D)) @ moved)
    u = run["pre_attn"] @ C
    data = jnp.sum(u * (laplacian @ u)) / jnp.sum((J @ params["x"]) ** 2)
    stds = [jnp.sort(run[name]) for name in ("std_attn", "std_mlp")]
    smallest = stds[0][0] * stds[1][0]
    largest = jnp.maximum(norm(mixer), jnp.maximum(norm(up), norm(down)))
    return [
        f * jnp.sqrt(jnp.maximum(data, 1e-300)),
        f * jnp.sqrt(operator),
        f * mixing * jnp.sqrt(norm(laplacian)),
        f * mixing / jnp.sqrt(smallest * stds[0][1] * stds[1][1]),
        mlp * mixing * gains[0] * gains[1] / smallest,
        (1 + lipschitz * largest**2) * (1 + norm(J @ run["attn"]) * largest) * gains[0] * gains[1] / smallest,
    ]
