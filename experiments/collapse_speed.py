"""How fast tokens become one: cubically by attention alone, exponentially or not at all with its companions.

    python experiments/collapse_speed.py        # CPU only, about half a minute of its time

Left, middle: ablations after Dong et al. (2021, arXiv 2103.03404). Random encoders with or without residual, MLP and
LayerNorm; d_M / ||H|| after every layer. Without a residual each layer cubes the distance, MLP and LayerNorm or not;
the residual alone ends that. Tokens are kept as centre plus deviation, all differences computed without cancellation,
so that the cubic law is seen down to 1e-300, far below the rounding of the tokens themselves.
Right: LayerNorm without residual and MLP need not collapse for chosen weights (after Wu et al. 2024, arXiv
2405.18781): an unstable equilibrium of rank 2, an antipodal pair that attracts, and values W_V = I that do collapse.

Expect: order 3.0 for the four variants without a residual and their collapse to 1e-6 within 5 layers; order 1 with it.
Of random starts of the equilibrium's weights about 71 % end at cosine +1, the rest at -1; of starts around the
antipodal pair (noise .5) more than 99 % end there; of random weights with LayerNorm (4 tokens of 5 features) fewer
than 1 % keep rank 2.
Writes collapse_speed.json, .png and .md to experiments/results.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from jaxsmooth.files import write_aside
from jaxsmooth.linalg.rows import standardise_rows
from jaxsmooth.metrics import token_cosine_similarity
from jaxsmooth.report.style import canvas, remark, save, title
from jaxsmooth.theory import diameter
from jaxsmooth.theory.literature.masked_attention import wu2024_antipodal, wu2024_equilibrium, wu2024_layer

VARIANTS: dict[str, tuple[bool, bool, bool]] = {
    "attention": (False, False, False),
    "attention, MLP": (False, True, False),
    "attention, LayerNorm": (False, False, True),
    "attention, MLP, LayerNorm": (False, True, True),
    "attention, residual": (True, False, False),
    "attention, residual, LayerNorm": (True, False, True),
    "all (a BERT block)": (True, True, True),
}
"""Name -> (residual, MLP, LayerNorm)."""
COLOURS = ("#000000", "#D55E00", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9", "#009E73")
SMALLEST = 1e-290


@dataclasses.dataclass(frozen=True)
class Args:
    """Size of the experiment."""

    tokens: int = 16
    width: int = 32
    heads: int = 4
    mlp_width: int = 64
    depth: int = 48
    trials: int = 24
    """Random encoders per variant."""
    starts: int = 1000
    """Random starts, or random weights, of each of the LayerNorm cases."""
    settle: int = 300
    """Layers after which those are judged."""
    seed: int = 0
    out: Path = Path(__file__).parent / "results"


class Network(NamedTuple):
    """Random weights of one or many encoders and their input; leading axes: trial, layer, head."""

    query_key: Array  # W_Q W_K^T / sqrt(head width)
    value: Array  # W_V W_O
    up: Array
    down: Array
    hidden: Array


class Split(NamedTuple):
    """Tokens as 1 centre^T + apart: small deviations keep their relative precision."""

    centre: Array  # [D]
    apart: Array  # [T D]


def draw(args: Args) -> Network:
    """Weights with entries of variance 1 / fan-in (2 / fan-in before ReLU), tokens after a LayerNorm; numpy alone."""
    rng = np.random.default_rng(args.seed)
    head_width = args.width // args.heads
    lead, flat = (args.trials, args.depth), args.width**-0.5
    query, key, value = flat * rng.standard_normal((3, *lead, args.heads, args.width, head_width))
    output = flat * rng.standard_normal((*lead, args.heads, head_width, args.width))
    hidden = rng.standard_normal((args.trials, args.tokens, args.width))
    hidden = hidden - hidden.mean(axis=-1, keepdims=True)
    return Network(
        query_key=jnp.asarray(query @ np.swapaxes(key, -1, -2) / np.sqrt(head_width)),
        value=jnp.asarray(value @ output),
        up=jnp.asarray(np.sqrt(2) * flat * rng.standard_normal((*lead, args.width, args.mlp_width))),
        down=jnp.asarray(args.mlp_width**-0.5 * rng.standard_normal((*lead, args.mlp_width, args.width))),
        hidden=jnp.asarray(hidden / hidden.std(axis=-1, keepdims=True)),
    )


def recentre(x: Split) -> Split:
    mean = jnp.mean(x.apart, axis=0)
    return Split(x.centre + mean, x.apart - mean[None])


def attention(x: Split, query_key: Array, value: Array) -> Split:
    """A - 1 mu^T = mu (e^E - sum mu e^E) / sum mu e^E with E = R W_QK R^T, mu the attention of the centre."""
    pull = jnp.einsum("d,nde,se->ns", x.centre, query_key, x.apart)
    mu = jax.nn.softmax(pull, axis=-1)[:, None]
    logits = jnp.einsum("td,nde,se->nts", x.apart, query_key, x.apart)
    small = jnp.max(jnp.abs(logits), axis=-1, keepdims=True) < 1
    deviation = jnp.expm1(jnp.where(small, logits, 0))
    mean = jnp.sum(mu * deviation, axis=-1, keepdims=True)
    # Where the logits are not small nothing cancels, and the exponentials alone could overflow.
    far = jax.nn.softmax(pull[:, None] + logits, axis=-1) - mu
    weights = jnp.where(small, mu * (deviation - mean) / (1 + mean), far)
    tokens = x.centre[None] + x.apart
    centre = jnp.einsum("ns,sd,nde->e", mu[:, 0], tokens, value)
    return Split(centre, jnp.einsum("nts,sd,nde->te", weights, x.apart, value))


def mlp(x: Split, up: Array, down: Array) -> Split:
    base, change = (x.centre @ up)[None], x.apart @ up
    moved = base + change
    # Two active units differ by their change, exactly; only a unit that switches needs the difference of two values.
    switched = jax.nn.relu(moved) - jax.nn.relu(base)
    apart = jnp.where((base > 0) & (moved > 0), change, jnp.where((base <= 0) & (moved <= 0), 0, switched))
    return Split(jax.nn.relu(base)[0] @ down, apart @ down)


def layer_norm(x: Split) -> Split:
    """u_i / s_i - u / s = r_i / s_i + u (s^2 - s_i^2) / (s s_i (s + s_i)), u the centre, r_i the deviations."""
    centre = x.centre - jnp.mean(x.centre)
    apart = x.apart - jnp.mean(x.apart, axis=-1, keepdims=True)
    gain = jnp.mean((2 * centre[None] + apart) * apart, axis=-1, keepdims=True)
    std = jnp.sqrt(jnp.mean(centre * centre))
    stds = jnp.sqrt(jnp.mean((centre[None] + apart) ** 2, axis=-1, keepdims=True))
    return Split(centre / std, apart / stds - centre[None] * gain / (std * stds * (std + stds)))


def add(x: Split, y: Split) -> Split:
    return Split(x.centre + y.centre, x.apart + y.apart)


def choose(condition: Array, yes: Split, no: Split) -> Split:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


@jax.jit
def collapse(network: Network, parts: Array) -> tuple[Array, Array]:
    """Relative distance d_M / ||H|| and largest distance of two tokens, [trials, depth + 1]; parts: VARIANTS' three."""
    residual, with_mlp, with_norm = parts

    def sublayer(x: Split, y: Split) -> Split:
        y = choose(residual, add(x, y), y)
        return recentre(choose(with_norm, layer_norm(y), y))

    def block(x: Split, weights: tuple[Array, ...]) -> tuple[Split, tuple[Array, Array]]:
        query_key, value, up, down = weights
        x = sublayer(x, attention(x, query_key, value))
        x = choose(with_mlp, sublayer(x, mlp(x, up, down)), x)
        return x, measure(x)

    def measure(x: Split) -> tuple[Array, Array]:
        # Scaled first: the squares of deviations below 1e-154 would underflow.
        size = jnp.maximum(jnp.max(jnp.abs(x.apart)), 1e-300)
        unit = x.apart / size
        apart = size * jnp.linalg.norm(unit)
        whole = jnp.sqrt(x.apart.shape[0] * jnp.sum(x.centre**2) + apart**2)
        return apart / whole, size * diameter(unit, jnp.ones(x.apart.shape[0], bool))

    def trial(one: Network) -> tuple[Array, Array]:
        start = recentre(Split(jnp.zeros(one.hidden.shape[-1]), one.hidden))
        _, after = jax.lax.scan(block, start, one[:4])
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), measure(start), after)

    return jax.vmap(trial)(network)


def cubic_bound(network: Network, diameter: np.ndarray) -> np.ndarray:
    """sum_h ||W_h|| tanh(||W_QK^h|| D^2 / 4) D of every layer at its own input, [trials, depth]."""
    norms = [np.linalg.norm(np.asarray(w), 2, axis=(-2, -1)) for w in (network.value, network.query_key)]
    before = diameter[:, :-1, None]
    return np.sum(norms[0] * np.tanh(norms[1] * before**2 / 4) * before, axis=-1)


def summarise(distance: np.ndarray) -> dict:
    """Median and range per layer, the order of convergence, and when 1e-6 is passed."""
    if not np.isfinite(distance).all():
        raise FloatingPointError("a distance is not finite; expected numbers in [0, 1]: did the tokens overflow?")
    usable = np.where(distance > SMALLEST, distance, np.nan)
    logs = np.log(usable)
    steps = np.diff(logs, axis=1)
    with np.errstate(invalid="ignore"):
        orders = np.where(steps[:, :-1] < -0.05, steps[:, 1:] / steps[:, :-1], np.nan)
    # The last order of each trial before underflow, or the median of the second half where nothing underflows.
    last = [
        row[np.isfinite(row)][-1] if np.isnan(d).any() else np.nanmedian(row[len(row) // 2 :])
        for row, d in zip(orders, usable, strict=True)
        if np.isfinite(row).any()
    ]
    passed = [int(np.argmax(row < 1e-6)) if (row < 1e-6).any() else None for row in distance]
    reached = [layer for layer in passed if layer is not None]
    middle = np.median(distance, axis=0)
    return {
        "median": [float(m) if m > SMALLEST else None for m in middle],
        "min": [float(m) if m > SMALLEST else None for m in distance.min(axis=0)],
        "max": [float(m) if m > SMALLEST else None for m in distance.max(axis=0)],
        "order": float(np.median(last)) if last else None,
        "order_trials": len(last),
        "layers_to_1e-6": float(np.median(reached)) if reached else None,
        "share_below_1e-6": len(reached) / len(passed),
    }


@functools.partial(jax.jit, static_argnames="steps")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, None))
def cosines(hidden: Array, query_key: Array, value: Array, steps: int) -> tuple[Array, Array]:
    """Mean cosine of two tokens after each of `steps` layers with LayerNorm, [cases, steps + 1]; the end."""
    mask = jnp.ones(hidden.shape[:-1], bool)

    def layer(x: Array, _: None) -> tuple[Array, Array]:
        after = wu2024_layer(x, mask, query_key, value)
        return after, token_cosine_similarity(after, mask)

    end, rest = jax.lax.scan(layer, hidden, None, length=steps)
    return jnp.concatenate([token_cosine_similarity(hidden, mask)[None], rest]), end


def layer_norm_cases(args: Args) -> tuple[dict, dict[str, np.ndarray]]:
    """Where tokens end for the explicit weights and for random ones: (shares, curves to draw)."""
    rng = np.random.default_rng(args.seed + 1)
    equilibrium, antipodal = wu2024_equilibrium(), wu2024_antipodal()
    count = args.starts
    free = standardise_rows(jnp.asarray(rng.standard_normal((count, 2, 3))))
    around = standardise_rows(antipodal.hidden[None] + 0.5 * jnp.asarray(rng.standard_normal((count, 2, 3))))
    four = standardise_rows(jnp.asarray(rng.standard_normal((count, 4, 5))))
    weights = jnp.asarray(rng.standard_normal((2, count, 5, 5)))
    moved = equilibrium.hidden + 1e-3 * jnp.asarray(rng.standard_normal((2, 3)))

    # All cases of one shape in one call, so that two programs are compiled and not eight.
    pairs = jnp.concatenate([free, equilibrium.hidden[None], moved[None], around])
    values = jnp.stack([equilibrium.value] * (count + 2) + [antipodal.value] * count)
    pair_curves = np.asarray(cosines(pairs, jnp.broadcast_to(jnp.eye(3), values.shape), values, args.settle)[0])
    eye = jnp.broadcast_to(jnp.eye(5), weights[0].shape)
    stacked = [jnp.concatenate(both) for both in ((four, four), (0.1 * eye, weights[0]), (eye, weights[1]))]
    four_curves, ends = (np.asarray(x) for x in cosines(*stacked, args.settle))

    shares = {
        "equilibrium, random starts": shares_of(pair_curves[:count, -1]),
        "antipodal pair, noise 0.5": shares_of(pair_curves[count + 2 :, -1]),
        "identity values, random starts": shares_of(four_curves[:count, -1]),
    }
    spectra = np.linalg.svd(ends[count:], compute_uv=False)
    rank = float(np.mean(spectra[:, 1] > 1e-6 * spectra[:, 0]))
    shares["random weights, 4 tokens of 5 features"] = {"rank_at_least_2": rank, "error": share_error(rank, count)}
    curves = {
        "equilibrium, exactly": pair_curves[count],
        "equilibrium, moved by 1e-3": pair_curves[count + 1],
        "antipodal pair, noise 0.5": pair_curves[count + 2],
        "identity values": four_curves[0],
    }
    return shares, {name: curve[:81] for name, curve in curves.items()}


def share_error(share: float, count: int) -> float:
    """Standard error of a share of independent cases."""
    return float(np.sqrt(share * (1 - share) / count))


def shares_of(ends: np.ndarray) -> dict:
    agree, oppose = float(np.mean(ends > 0.999)), float(np.mean(ends < -0.999))
    return {"cosine_plus_one": agree, "cosine_minus_one": oppose, "error": share_error(agree, len(ends))}


def figure(result: dict, path: Path) -> None:
    with canvas(17, 5.8) as drawn:
        cubic, exponential, right = drawn.subplots(1, 3)
        for (name, found), colour in zip(result["variants"].items(), COLOURS, strict=True):
            series = np.array([np.nan if m is None else m for m in found["median"]])
            axes = exponential if VARIANTS[name][0] else cubic
            label = f"{name} ({shown(found['order'], 2)})"
            axes.semilogy(series, color=colour, marker="o" if axes is cubic else None, label=label)
            if axes is exponential:
                axes.fill_between(range(series.size), *unpack(found), color=colour, alpha=0.12, linewidth=0)
        cubic.set_ylim(1e-150, 3)
        cubic.set_xlim(-0.3, 8.3)
        for axes in (cubic, exponential):
            axes.set_xlabel("layer")
            axes.set_ylabel("$d_M$ / ‖H‖ (log scale)")
            axes.legend(loc="lower left", fontsize=10, title="(order of convergence)", alignment="left")
        title(cubic, "No residual: cubic")
        title(exponential, "Residual: exponential at most")
        for (name, curve), colour in zip(result["curves"].items(), COLOURS[1:], strict=False):
            right.plot(curve, color=colour, label=name)
        right.set_ylim(-1.08, 1.08)
        right.set_xlabel("layer of attention with LayerNorm, nothing else")
        right.set_ylabel("mean cosine of two tokens")
        right.legend(loc="upper right", bbox_to_anchor=(1, 0.9), fontsize=10)
        title(right, "LayerNorm: values decide")
        remark(
            drawn, f"left, middle: median (band: range) of {result['args']['trials']} random encoders; order 3 is cubic"
        )
        save(drawn, path)


def unpack(found: dict) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value per layer, NaN where they underflowed."""
    low, high = (np.array([np.nan if m is None else m for m in found[key]]) for key in ("min", "max"))
    return low, high


def shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def report(result: dict) -> str:
    rows = [
        f"| {name} | {shown(v['order'], 2)} | {shown(v['layers_to_1e-6'], 0)} | {v['share_below_1e-6']:.0%} |"
        for name, v in result["variants"].items()
    ]
    shares = [
        f"- {name}: " + ", ".join(f"{k.replace('_', ' ')} {x:.4f}" for k, x in found.items())
        for name, found in result["layer_norm"].items()
    ]
    slack = result["cubic_bound"]
    return "\n".join(
        [
            "# How fast tokens become one",
            "",
            "`python experiments/collapse_speed.py` with the defaults; float64. See the head of that file.",
            "",
            "![relative distance by layer, and cosines under LayerNorm](collapse_speed.png)",
            "",
            "| layers of | order | layers to 1e-6 (median) | encoders that get there |",
            "|---|---|---|---|",
            *rows,
            "",
            "Order: the last ratio of successive steps of ln d_M before underflow; 3 is cubic, 1 exponential.",
            f"Attention alone against D' ≤ Σ‖W_h‖ tanh(‖W_QK‖D²/4) D, over {slack['comparisons']} layers: "
            f"violations {slack['violations']}, median of bound over actual {slack['median_slack']:.1f}.",
            "",
            "Attention with LayerNorm, no residual, no MLP; shares of starts, standard error last:",
            "",
            *shares,
            "",
        ]
    )


def main(args: Args) -> dict:
    jax.config.update("jax_enable_x64", True)
    network = draw(args)
    variants, slack = {}, {}
    for name, parts in VARIANTS.items():
        distance, diameter = (np.asarray(x) for x in collapse(network, jnp.array(parts)))
        variants[name] = summarise(distance)
        if name == "attention":
            bound, after = cubic_bound(network, diameter), diameter[:, 1:]
            seen = after > SMALLEST
            slack = {
                "comparisons": int(seen.sum()),
                "violations": int(np.sum(after[seen] > bound[seen] * (1 + 1e-9))),
                "median_slack": float(np.median(bound[seen] / after[seen])),
            }
    shares, curves = layer_norm_cases(args)
    result = {
        "args": {k: v for k, v in dataclasses.asdict(args).items() if k != "out"},
        "variants": variants,
        "cubic_bound": slack,
        "layer_norm": shares,
        "curves": {name: curve.tolist() for name, curve in curves.items()},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_aside(args.out / "collapse_speed.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    figure(result, args.out / "collapse_speed.png")
    write_aside(args.out / "collapse_speed.md", report(result).encode())
    return result


if __name__ == "__main__":
    main(tyro.cli(Args))
