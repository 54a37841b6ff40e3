"""Do tokens turn to the principal eigenvector of each layer's W_V W_O? On a real model and real text, and steered.

    python -m experiments.neighbours.power_method       # minilm-l6, 32 film reviews

After Li and Altafini (2026, arXiv 2605.25619): attention with normalisation acts like a step of the power method on
F = sum_h W_V^h W_O^h, so tokens tilt to F's principal eigenvector v. Three questions, one panel each:
(a) real model, unchanged: mean |cos| of tokens with the layer's own v before and after its attention sub-layer, against
    chance and against the other layers' eigenvectors;
(b) the same attention with residual and L2 normalisation but no MLP and no biases after the softmax: one layer's
    weights repeated (shared, as in ALBERT) against the six layers in turn (distinct);
(c) steering: a chosen direction made an eigenvector of every layer's F with eigenvalue mu (value and output kernels of
    every head widened by one column), the whole real model run, mean |cos| with that direction at the end.

Expect (defaults): (a) no tilt worth the name: mean |cos| with the own v is below .1 everywhere, about chance (.041 for
a real v, .064 for a plane), and attention adds at most .02; (b) five of the six layers, repeated, align to .68 or more
with the eigenvector of I + F, which is what the residual iterates, the second to .28, the layers in turn to .11;
(c) |cos| with the chosen direction rises with mu to above .7, and the tokens' mean cosine with it. Where the
eigenvalue of largest modulus is complex, v is a plane.

One model in depth; projection.py looks at every model as it is. Hardware and time: 2 shared cores of an Intel Xeon,
about a minute of processor time. Verdict rule: steering is reproduced if the mean |cos| with the chosen direction after
the last layer rises with every step of mu and exceeds .7 at the largest.
Writes power_method.json, .png and .md to experiments/results/neighbours.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

import jaxsmooth
from jaxsmooth import theory
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.bert.attention import attention_logits, attention_probs, project_heads
from jaxsmooth.studies.weights import projection_by_chance
from jaxsmooth.types import Batch, BlockTrace

from .. import keeping
from ..drawing import canvas, remark, save, title


@dataclasses.dataclass(frozen=True)
class Args:
    """What to run."""

    model: str = "minilm-l6"
    data: str = "movie-reviews"
    limit: int = 32
    """Sentences."""
    steps: int = 40
    """Layers of the runs without MLP."""
    gains: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0)
    """Steered eigenvalues, in units of ||F|| of the layer."""
    directions: int = 3
    """Random directions to steer to."""
    seed: int = 0
    out: Path = keeping.RESULTS / "neighbours"


def head_products(model: jaxsmooth.Encoder) -> np.ndarray:
    """W_h = value kernel times output kernel of every head, float64, [L N D D]."""
    attn = model.blocks.attn
    value, output = (np.asarray(k, np.float64) for k in (attn.value.kernel, attn.output.kernel))
    return np.einsum("ldnh,lnhe->lnde", value, output)


@jax.jit
def alignment(hidden: Array, mask: Array, frames: Array) -> Array:
    """Mean over real tokens of all sentences of ||P x|| / ||x|| for K subspaces with orthonormal rows, [K]."""
    wide = jnp.broadcast_to(frames.astype(hidden.dtype)[:, None], (len(frames), len(hidden), *frames.shape[1:]))
    by_sentence = jax.vmap(lambda frame: theory.li2026_projection(hidden, mask, frame))(wide)
    tokens = jnp.sum(mask, axis=-1).astype(hidden.dtype)
    return jnp.sum(by_sentence * tokens[None], axis=-1) / jnp.sum(tokens)


def sites_of(trace: BlockTrace) -> tuple[Array, Array, Array]:
    return trace.input, trace.pre_attn, trace.hidden


def tilt(model: jaxsmooth.Encoder, batch: Batch, frames: np.ndarray) -> dict:
    """(a): alignment of the states around every attention with every layer's v, each [L of states, L of v]."""
    _, sites = jaxsmooth.encode(model, batch, collect=sites_of)
    every = jax.jit(jax.vmap(lambda x: alignment(x, batch.mask, jnp.asarray(frames))))
    before, after, output = (np.asarray(every(x)) for x in sites)
    return {"before": before.tolist(), "after_attention": after.tolist(), "block_output": output.tolist()}


@functools.partial(jax.jit, static_argnames="steps")
def bare_runs(model: jaxsmooth.Encoder, batch: Batch, order: Array, frames: Array, steps: int) -> Array:
    """(b): X <- N(X + sum_h A_h X W_h) with layer order[k] at step k; alignment with its frames, [steps + 1 K]."""

    def block_at(index: Array) -> tuple:
        return jax.tree.map(lambda leaf: leaf[index], model.blocks), frames[index]

    def step(x: Array, index: Array) -> tuple[Array, Array]:
        block, frame = block_at(index)
        # Tokens as the model's own attention expects them: its inputs come from a LayerNorm, of norm about sqrt D.
        scaled = x * x.shape[-1] ** 0.5
        query, key = project_heads(block.attn.query, scaled), project_heads(block.attn.key, scaled)
        attn = attention_probs(attention_logits(query, key), batch.mask)
        mixed = jnp.einsum("bnts,bsd,dnh,nhe->bte", attn, x, block.attn.value.kernel, block.attn.output.kernel)
        x = unit(x + mixed)
        return x, alignment(x, batch.mask, frame)

    start = unit(jaxsmooth.embed(model, batch))
    first = alignment(start, batch.mask, frames[order[0]])
    return jnp.concatenate([first[None], jax.lax.scan(step, start, order[:steps])[1]])


def unit(x: Array) -> Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def steered(model: jaxsmooth.Encoder, direction: np.ndarray, eigenvalues: np.ndarray) -> jaxsmooth.Encoder:
    """The encoder whose F of every layer is `li2026_steered_weight` of its own: heads widened by one column.

    W_h' = P W_h P + (mu / N) v v^T, P = I - v v^T: value [P W_V^h, v], output [W_O^h P; (mu / N) v]. The output
    bias loses its component along v, so that only the eigenvalue moves tokens there.
    """
    attn = model.blocks.attn
    v = jnp.asarray(direction / np.linalg.norm(direction), attn.value.kernel.dtype)
    layers, width, heads, _ = attn.value.kernel.shape
    value = attn.value.kernel - jnp.einsum("d,e,lenh->ldnh", v, v, attn.value.kernel)
    output = attn.output.kernel - jnp.einsum("lnhe,e,d->lnhd", attn.output.kernel, v, v)
    share = jnp.asarray(eigenvalues / heads, v.dtype)[:, None, None, None]
    column = jnp.broadcast_to(v[None, :, None, None], (layers, width, heads, 1))
    row = jnp.broadcast_to(share * v[None, None, None], (layers, heads, 1, width))
    zero = jnp.zeros((layers, heads, 1), v.dtype)
    wide = dataclasses.replace(
        attn,
        value=dataclasses.replace(
            attn.value,
            kernel=jnp.concatenate([value, column], axis=-1),
            bias=jnp.concatenate([attn.value.bias, zero], axis=-1),
        ),
        output=dataclasses.replace(
            attn.output,
            kernel=jnp.concatenate([output, row], axis=2),
            bias=attn.output.bias - jnp.outer(attn.output.bias @ v, v),
        ),
    )
    return dataclasses.replace(model, blocks=dataclasses.replace(model.blocks, attn=wide))


def last_of(trace: BlockTrace) -> Array:
    return trace.hidden


def steer(model: jaxsmooth.Encoder, batch: Batch, products: np.ndarray, args: Args) -> dict:
    """(c): alignment with the wished direction after every layer, and CosSim at the end, for every mu and direction."""
    norms = np.linalg.norm(products.sum(axis=1), 2, axis=(-2, -1))
    wishes = np.random.default_rng(args.seed).standard_normal((args.directions, products.shape[-1]))
    wishes -= wishes.mean(axis=-1, keepdims=True)
    found, cosine = [], []
    for gain in args.gains:
        runs = [jaxsmooth.encode(steered(model, wish, gain * norms), batch, collect=last_of)[1] for wish in wishes]
        frames = wishes / np.linalg.norm(wishes, axis=-1, keepdims=True)
        found.append(
            [
                [float(alignment(layer, batch.mask, jnp.asarray(frame)[None, None])[0]) for layer in run]
                for run, frame in zip(runs, frames, strict=True)
            ]
        )
        ends = [jaxsmooth.metrics.token_cosine_similarity(run[-1], batch.mask) for run in runs]
        cosine.append(float(np.mean(ends)))
    return {"alignment": found, "cosine_similarity": cosine, "norm_of_F": norms.tolist()}


def apart(heights: list[float], least: float = 0.04) -> list[float]:
    """The same heights, moved up where two labels would touch."""
    placed, last = dict.fromkeys(range(len(heights)), 0.0), -1.0
    for place in sorted(range(len(heights)), key=heights.__getitem__):
        placed[place] = last = max(heights[place], last + least)
    return list(placed.values())


def figure(result: dict, path: Path) -> None:
    layers = np.arange(1, len(result["eigenvalues"]) + 1)
    with canvas(17, 5.6) as drawn:
        left, middle, right = drawn.subplots(1, 3)
        own = {k: np.diag(np.array(result["tilt"][k])) for k in ("before", "after_attention", "block_output")}
        others = np.array(result["tilt"]["after_attention"])
        rest = (others.sum(axis=1) - np.diag(others)) / (len(layers) - 1)
        left.plot(layers, own["before"], color="#0072B2", marker="o", label="block input")
        left.plot(layers, own["after_attention"], color="#D55E00", marker="s", label="after attention and residual")
        left.plot(layers, own["block_output"], color="#009E73", marker="^", label="block output")
        left.plot(layers, rest, color="#999999", marker="x", label="after attention, other layers' eigenvectors")
        left.plot(layers, result["chance"], color="#000000", linestyle=":", label="chance")
        left.set_xlabel("layer")
        left.legend(fontsize=9.5, loc="upper left")
        left.set_ylim(0, 1.6 * max(max(values) for values in own.values()))
        title(left, "Real model: the layer's own eigenvector")
        curves = result["shared_with_residual"]
        for layer, (curve, height) in enumerate(zip(curves, apart([c[-1] for c in curves]), strict=True), start=1):
            middle.plot(curve, color="#0072B2", alpha=0.25 + 0.12 * layer, linewidth=1.6)
            middle.text(len(curve) - 0.5, height, str(layer), va="center")
        middle.plot(result["distinct_with_residual"], color="#D55E00", label="six layers in turn, each against its own")
        middle.plot([], color="#0072B2", label="one layer's weights repeated (number: layer)")
        middle.set_ylim(0, 1.25)
        middle.set_xlabel("layer of attention, residual, L2 norm; no MLP")
        middle.legend(fontsize=9.5, loc="upper left")
        title(middle, "Shared against distinct weights (I + F)")
        for gain, runs in zip(result["args"]["gains"], result["steer"]["alignment"], strict=True):
            colour = (0.1, 0.25 + 0.5 * (1 - gain / max(result["args"]["gains"])), 0.7, 1.0)
            right.plot(layers, np.mean(runs, axis=0), color=colour, marker="o", label=f"μ = {gain:g} ‖F‖")
        right.set_ylim(0, 1.05)
        right.set_xlabel("layer")
        right.legend(fontsize=9.5, loc="upper left")
        title(right, "Whole model, steered")
        for axes in (left, middle, right):
            axes.set_ylabel("mean |cos| of tokens with the direction")
        name = result["args"]["model"]
        remark(drawn, f"{name}, {result['sentences']} sentences of {result['args']['data']}; means over real tokens")
        save(drawn, path)


def report(result: dict) -> str:
    own = {k: np.diag(np.array(v)) for k, v in result["tilt"].items()}
    rows = [
        f"| {k + 1} | {mu[0]:.2f}{f' ± {abs(mu[1]):.2f}i' if mu[1] else ''} | {own['before'][k]:.3f} | "
        f"{own['after_attention'][k]:.3f} | {own['block_output'][k]:.3f} | {result['chance'][k]:.3f} | "
        f"{result['shared'][k][-1]:.3f} | {result['shared_with_residual'][k][-1]:.3f} |"
        for k, mu in enumerate(result["eigenvalues"])
    ]
    ends = np.array(result["steer"]["alignment"])[:, :, -1]
    steering = [
        f"| {gain:g} | {end.mean():.3f} | {end.min():.3f} to {end.max():.3f} | {cosine:.3f} |"
        for gain, end, cosine in zip(result["args"]["gains"], ends, result["steer"]["cosine_similarity"], strict=True)
    ]
    return "\n".join(
        [
            "# Attention as the power method, on a real model",
            "",
            f"`python -m experiments.neighbours.power_method` with the defaults: "
            f"{result['args']['model']}, {result['sentences']} sentences of "
            f"{result['args']['data']}, float32. See the head of that file.",
            "",
            "![alignment by layer, shared and distinct weights, steering](power_method.png)",
            "",
            "Mean |cos| of tokens with the principal eigenvector of the layer's own F = Σ W_V W_O; last two "
            f"columns: after {result['args']['steps']} repetitions of that layer's attention, residual and L2 norm, "
            "without MLP, against the eigenvector of F and of I + F, which is what the residual makes of it.",
            "",
            "| layer | eigenvalue | block input | after attention | block output | chance | repeated | same, I + F |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"The layers in turn, no MLP, {result['args']['steps']} steps: mean |cos| with the layer's own eigenvector "
            f"over the last six {np.mean(result['distinct'][-6:]):.3f} (F), "
            f"{np.mean(result['distinct_with_residual'][-6:]):.3f} (I + F).",
            "",
            "Steering the whole model to random directions (eigenvalue μ in units of ‖F‖ of each layer):",
            "",
            "| μ / ‖F‖ | mean of abs cos after the last layer | over directions | CosSim of tokens |",
            "|---|---|---|---|",
            *steering,
            "",
        ]
    )


def main(args: Args) -> dict:
    model, tokenizer = jaxsmooth.load(args.model)
    texts = read_texts(args.data, args.limit)
    batch = tokenizer(texts)
    products = head_products(model)
    weights = products.sum(axis=1)
    found = theory.li2026_principal_subspace(weights)
    with_residual = theory.li2026_principal_subspace(np.eye(weights.shape[-1]) + weights)
    both = np.stack([found.frame, with_residual.frame], axis=1)
    count = len(weights)
    run = functools.partial(bare_runs, model, batch, frames=jnp.asarray(both), steps=args.steps)
    # Each [steps + 1, 2]: against the eigenvectors of F and of I + F.
    shared = [np.asarray(run(jnp.full(args.steps, layer))) for layer in range(count)]
    distinct = np.asarray(run(jnp.arange(args.steps) % count))
    result = {
        "args": {k: v for k, v in dataclasses.asdict(args).items() if k != "out"},
        "sentences": len(texts),
        "eigenvalues": [[value.real, value.imag] for value in found.eigenvalue],
        "chance": projection_by_chance(found).tolist(),
        "tilt": tilt(model, batch, found.frame),
        "eigenvalues_with_residual": [[value.real, value.imag] for value in with_residual.eigenvalue],
        "shared": [curve[:, 0].tolist() for curve in shared],
        "shared_with_residual": [curve[:, 1].tolist() for curve in shared],
        "distinct": distinct[:, 0].tolist(),
        "distinct_with_residual": distinct[:, 1].tolist(),
        "steer": steer(model, batch, products, args),
    }
    figure(result, args.out / "power_method.png")
    keeping.write(args.out, "power_method", result, report(result))
    return result


if __name__ == "__main__":
    main(tyro.cli(Args))
