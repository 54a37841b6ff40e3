"""What no rate valid on the region can undercut: inputs of the region found by gradient ascent on the actual rate.

Shows:    per layer, the largest d_M(H') / d_M(X) found over inputs X that keep attention, whose LayerNorm stds are at
          least the observed ones and whose MLP pre-activations stay in the hull of the observed tokens, unit by unit.
Command:  python experiments/rates_adversary.py
Hardware: 2 CPU cores, about 3 minutes a model; float64.
Expect:   one to three times the observed rate: far from the bound's multiple, so the gap is not proved necessary.
Writes results/rates_adversary.json, rates_adversary.png and rates_adversary.md.
"""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import Array

import jaxsmooth
from drawing import canvas, layer_axis, remark, save, title
from jaxsmooth import Batch, Encoder
from jaxsmooth.files import atomic_write
from jaxsmooth.theory.rates import activation_slopes

STEPS = 400
MARGIN = 0.01  # constraints are pushed this far inside, so that the end point satisfies them


@dataclasses.dataclass(frozen=True)
class Args:
    """What to attack."""

    models: tuple[str, ...] = ("minilm-l6", "e5-small-q4")
    """Model assets, directories or hub ids."""
    text: str = "Effective but too tepid biopic"
    """The sentence, by default a movie review."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    jax.config.update("jax_enable_x64", True)
    found = {}
    for name in args.models:
        model, tokenizer = jaxsmooth.load(name)
        model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
        found[name] = search(model, tokenizer([args.text]))
    result = {"text": args.text, "models": found}
    atomic_write(args.out / "rates_adversary.json", json.dumps(result, indent=1) + "\n")
    draw(found, args.text, args.out / "rates_adversary.png")
    text = markdown(args, found)
    atomic_write(args.out / "rates_adversary.md", text)
    print(text)


def draw(found: dict[str, list[dict[str, float]]], text: str, path: Path) -> None:
    with canvas(5.5 * len(found), 4.4) as figure:
        for axes, (name, layers) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            numbers = np.arange(1, len(layers) + 1)
            axes.plot(numbers, [row["found"] for row in layers], color="#D55E00", marker="s", label="largest found")
            axes.plot(numbers, [row["actual"] for row in layers], color="#000000", marker="o", label="observed")
            axes.set_ylabel("$d_M(H') / d_M(X)$")
            axes.set_ylim(bottom=0)
            axes.legend(loc="best")
            layer_axis(axes, 1, len(layers))
            title(axes, name)
        remark(figure, f"Inputs with the attention, stds and pre-activation box of “{text}”.")
        save(figure, path)


def markdown(args: Args, found: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "# The largest rate found inside the region",
        "",
        f"`python experiments/rates_adversary.py --models {' '.join(args.models)}`; double precision, the sentence",
        f"“{args.text}”. Gradient ascent over inputs that keep its attention, have LayerNorm stds of at least its own",
        "and pre-activations in the hull of its tokens'. No rate valid on that region can be below the last column.",
        "",
        "| model | layer | observed rate | largest found |",
        "|---|---|---|---|",
    ]
    for name, layers in found.items():
        lines += [f"| {name} | {k} | {row['actual']:.3f} | {row['found']:.3f} |" for k, row in enumerate(layers, 1)]
    return "\n".join([*lines, "", "![](rates_adversary.png)", ""])


def search(model: Encoder, batch: Batch) -> list[dict[str, float]]:
    """Per layer: the observed rate and the largest found."""
    length = int(batch.mask.sum())
    batch = Batch(*(leaf[:, :length] for leaf in (batch.tokens, batch.segments, batch.mask)))
    _, traces = jaxsmooth.encode(model, batch, collect=lambda trace: trace)
    climb = jax.jit(functools.partial(_climb, model.config.activation, model.config.eps))
    found = []
    for layer in range(model.config.layers):
        trace = jax.tree.map(lambda leaf, layer=layer: leaf[layer], traces)
        x, attn = trace.input[0], trace.attn[0]
        observed, *ends = climb(trace.block, attn, x, x)
        for start in _starts(trace, x):
            ends += climb(trace.block, attn, x, start)[1:]
        found.append({"actual": float(observed), "found": max(float(end) for end in (observed, *ends))})
        print(layer + 1, found[-1], flush=True)
    return found


def _starts(trace, x: Array) -> list[Array]:
    """Consensus at the token of the largest std before the second LayerNorm, and a random step away from it."""
    block, width = trace.block, x.shape[1]
    mixed = jnp.eye(width) + jnp.einsum("dnh,nhe->de", block.attn.value.kernel, block.attn.output.kernel)
    bias = jnp.einsum("nh,nhe->e", block.attn.value.bias, block.attn.output.kernel) + block.attn.output.bias
    token = jnp.argmax(trace.std_mlp[0, :, 0])
    centred = trace.pre_attn[0, token] - trace.pre_attn[0, token].mean()
    wanted = centred * 1.02 * trace.std_attn.max() / trace.std_attn[0, token, 0]
    consensus = jnp.linalg.solve(mixed.T, wanted - bias)
    away = jnp.asarray(np.random.default_rng(0).standard_normal(x.shape))
    return [consensus + size * away for size in (0.003, 0.03)]


def _climb(activation: str, eps: float, block, attn: Array, observed: Array, start: Array) -> tuple[Array, Array]:
    """The observed rate, and the largest rate of an input of the region on the segment to where Adam ends."""
    run = functools.partial(_run, activation, eps, block, attn)
    std_attn, pre, std_mlp, out = run(observed)
    low, high = pre.min(axis=0), pre.max(axis=0)

    def slack(x: Array) -> tuple[Array, Array, Array]:
        a, p, m, h = run(x)
        stds = jnp.minimum(a / std_attn, m / std_mlp) - 1
        return stds, jnp.minimum(high - p, p - low) / (high - low), _distance(h) / _distance(x)

    def loss(x: Array, weight: Array) -> Array:
        stds, box, rate = slack(x)
        broken = sum(jnp.sum(jnp.maximum(MARGIN - s, 0) ** 2) for s in (stds, box))
        return weight * broken - jnp.log(rate)

    adam = optax.adam(optax.cosine_decay_schedule(3e-2, STEPS))

    def step(carry: tuple, i: Array) -> tuple:
        x, state = carry
        move, state = adam.update(jax.grad(loss)(x, 10 ** (1 + 3 * i / STEPS)), state)
        return (x + move, state), None

    (end, _), _ = jax.lax.scan(step, (start, adam.init(start)), jnp.arange(STEPS, dtype=start.dtype))

    def rate_inside(t: Array) -> Array:
        stds, box, rate = slack(observed + t * (end - observed))
        return jnp.where((stds.min() >= 0) & (box.min() >= 0), rate, 0)

    return _distance(out) / _distance(observed), jax.lax.map(rate_inside, jnp.linspace(0.01, 1, 100)).max()


def _run(activation: str, eps: float, block, attn: Array, x: Array) -> tuple[Array, Array, Array, Array]:
    values = jnp.einsum("sd,dnh->snh", x, block.attn.value.kernel) + block.attn.value.bias[None]
    mixed = jnp.einsum("nts,snh,nhd->td", attn, values, block.attn.output.kernel) + block.attn.output.bias[None]
    y, std_attn = _normalise(x + mixed, block.norm_attn, eps)
    pre = y @ block.up.kernel + block.up.bias[None]
    z = y + activation_slopes.activate(activation, pre) @ block.down.kernel + block.down.bias[None]
    out, std_mlp = _normalise(z, block.norm_mlp, eps)
    return std_attn, pre, std_mlp, out


def _normalise(x: Array, norm, eps: float) -> tuple[Array, Array]:
    x = x - x.mean(axis=1, keepdims=True)
    std = jnp.sqrt((x * x).mean(axis=1) + eps)
    return x / std[:, None] * norm.scale[None] + norm.bias[None], std


def _distance(x: Array) -> Array:
    return jnp.linalg.norm(x - x.mean(axis=0, keepdims=True))


if __name__ == "__main__":
    main(tyro.cli(Args))
