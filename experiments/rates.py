"""How close a bound of d_M(H') / d_M(X) can come to the truth on a real model: the ladder, a region's rate, the data's.

Shows:    per layer, the actual rate, Shi et al.'s L1, the ladder's L3 and L4, the rate valid on a region of inputs
          (a box of RADIUS stds of its unit around every pre-activation; and the hull of all tokens), the data-level
          rate from the spectrum of the MLP's residual; and the local law at consensus with its exponents.
Command:  python experiments/rates.py minilm-l6 e5-small-q4
Hardware: 2 CPU cores, about 15 minutes when idle; float64.
Expect:   medians over layers and sentences, as multiples of the actual rate: region at most 20, data at most 2, on
          both models; the data-level rate of the last layer of e5-small-q4 below 1.
"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxsmooth
from drawing import COLOURS, canvas, layer_axis, log_axis, look, save, title
from jaxsmooth import Batch, BlockTrace, Encoder
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.studies import measurements
from jaxsmooth.theory import BlockNorms, centre_tokens, mixing_rate
from jaxsmooth.theory.block import ladder
from jaxsmooth.theory.rates import activation_slopes, residual_spectrum
from jaxsmooth.theory.rates.region import Region, secant_box_rate, slope_box_rate

TOKENS = 24  # sentences longer than this are left out: the cost grows with the square
RADII = (0.05,)  # in stds of the unit
SHOWN = ("actual", "data", *(f"box {radius:g}" for radius in RADII), "hull", "L4", "L3", "L1")
SHADES = COLOURS | dict(zip((key for key in SHOWN if key not in COLOURS), look.FURTHER, strict=False))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sentences", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = {name: measure(name, options.sentences) for name in options.models}
    atomic_write(options.out / "rates.json", json.dumps(found, indent=1) + "\n")
    atomic_write(options.out / "rates.md", markdown(found))
    draw(found, options.out / "rates.png")
    print(markdown(found))


def measure(name: str, sentences: int) -> dict:
    """Every rate of every layer and sentence: name -> [layers][sentences], and the local law."""
    model, tokenizer = jaxsmooth.load(name)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
    batch = _batch(tokenizer, sentences)
    _, traces = jaxsmooth.encode(model, batch, collect=lambda trace: trace)
    norms = measurements.model_norms(model)
    rates: dict[str, list] = {key: [] for key in SHOWN}
    for layer in range(model.config.layers):
        trace = jax.tree.map(lambda leaf, layer=layer: leaf[layer], traces)
        own = jax.tree.map(lambda leaf, layer=layer: leaf[layer], norms)
        for key, values in _layer_rates(model, trace, own, batch.mask).items():
            rates[key].append([float(value) for value in values])
        print(name, layer, {key: round(float(np.median(rates[key][-1])), 2) for key in SHOWN}, flush=True)
    return {
        "tokens": [int(n) for n in batch.mask.sum(axis=1)],
        "precision": "float64",
        "rates": rates,
        "local": local_law(model, batch),
    }


def _batch(tokenizer, sentences: int) -> Batch:
    chosen = []
    for text in read_texts("movie-reviews", limit=40 * sentences):
        one = tokenizer([text])
        if int(one.mask.sum()) <= TOKENS and len(chosen) < sentences:
            chosen.append(text)
    batch = tokenizer(chosen)
    wide = max(0, TOKENS - batch.tokens.shape[1])
    return jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, wide)))[:, :TOKENS], batch)


def _layer_rates(model: Encoder, trace: BlockTrace, norms: BlockNorms, mask: Array) -> dict[str, Array]:
    activation = model.config.activation
    state = ladder.BlockState(
        trace.input, trace.attn, trace.pre_attn, trace.std_attn, trace.std_mlp, mask, mixing_rate(trace.attn, mask)
    )
    pre = trace.normed @ trace.block.up.kernel + trace.block.up.bias[None, None]
    spread = _unit_spread(pre, mask)
    regions = {
        radius: Region(trace.attn, trace.std_attn, trace.std_mlp, mask, pre, radius * spread) for radius in RADII
    }
    lengths = jnp.linalg.norm(trace.hidden - trace.block.norm_mlp.bias[None, None], axis=-1)
    return {
        "actual": ladder.actual_rate(trace.input, trace.hidden, mask),
        "data": residual_spectrum.residual_spectrum_rate(
            trace.block, trace.input, trace.normed, pre, trace.std_mlp, lengths, mask, activation
        ),
        **{f"box {r:g}": _secant(trace.block, region, activation) for r, region in regions.items()},
        "hull": _hull(trace.block, regions[RADII[0]]._replace(radius=jnp.zeros_like(pre)), activation),
        "L4": ladder.data_rate(norms, state),
        "L3": ladder.operator_rate(trace.block, norms, state)[0],
        "L1": ladder.block_rate(norms, state),
    }


def _unit_spread(pre: Array, mask: Array) -> Array:
    """Std of every unit's pre-activation over the real tokens of its sentence, repeated for every token."""
    real = mask[..., None].astype(pre.dtype)
    count = real.sum(axis=1, keepdims=True)
    mean = (pre * real).sum(axis=1, keepdims=True) / count
    return jnp.broadcast_to(jnp.sqrt((((pre - mean) * real) ** 2).sum(axis=1, keepdims=True) / count), pre.shape)


_secant = jax.jit(lambda w, region, activation: secant_box_rate(w, region, activation).rate, static_argnums=2)
_hull = jax.jit(lambda w, region, activation: slope_box_rate(w, region, activation).rate, static_argnums=2)


def local_law(model: Encoder, batch: Batch) -> dict:
    """The linear map of differences along the orbit of consensus that starts at each sentence's mean embedding.

    At X = 1 x every attention with a common mask is 11^T / n and drops out: J block(X) = J X M to first order, M the
    Jacobian of LN2(MLP(LN1(.))) at x + sum_h x W_h + b.
    """
    activation, eps = model.config.activation, model.config.eps

    def step(x: Array, block) -> tuple[Array, Array]:
        values = jnp.einsum("d,dnh->nh", x, block.attn.value.kernel) + block.attn.value.bias
        residual_sum = x + jnp.einsum("nh,nhd->d", values, block.attn.output.kernel) + block.attn.output.bias

        def tail(u: Array) -> Array:
            y = _normalise(u, block.norm_attn, eps)
            wide = activation_slopes.activate(activation, y @ block.up.kernel + block.up.bias)
            return _normalise(y + wide @ block.down.kernel + block.down.bias, block.norm_mlp, eps)

        return tail(residual_sum), jax.jacfwd(tail)(residual_sum).T

    embedded = jaxsmooth.embed(model, batch)
    starts = centre_tokens(embedded, batch.mask)
    means = jnp.where(batch.mask[..., None], embedded, 0).sum(axis=1) / batch.mask.sum(axis=1, keepdims=True)
    found: dict[str, list] = {"norms": [], "exponent": [], "typical exponent": [], "cycle exponents": []}
    orbit = jax.jit(lambda x: jax.lax.scan(step, x, model.blocks))
    for mean, differences in zip(means, starts, strict=True):
        end, maps = orbit(mean)
        product = _product(maps)
        found["norms"].append([float(np.linalg.norm(m, 2)) for m in np.asarray(maps)])
        found["exponent"].append(math.log(np.linalg.norm(product, 2)) / len(maps))
        grown = np.linalg.norm(np.asarray(differences) @ product) / np.linalg.norm(differences)
        found["typical exponent"].append(math.log(grown) / len(maps))
        # The stack applied again and again to its own output: the exponent per layer in the long run.
        growth, vector = [], np.asarray(differences)
        for _ in range(12):
            vector = vector @ product
            growth.append(math.log(np.linalg.norm(vector)) / len(maps))
            vector = vector / np.linalg.norm(vector)
            end, maps = orbit(end)
            product = _product(maps)
        found["cycle exponents"].append(growth[1:])
    return found


def _normalise(x: Array, norm, eps: float) -> Array:
    x = x - x.mean()
    return x / jnp.sqrt((x * x).mean() + eps) * norm.scale + norm.bias


def _product(maps: Array) -> np.ndarray:
    product = np.eye(maps.shape[-1])
    for m in np.asarray(maps):
        product = product @ m
    return product


def summary(found: dict) -> dict[str, dict[str, float]]:
    """Median and quartiles over layers and sentences of every bound over the actual rate."""
    actual = np.array(found["rates"]["actual"])
    return {
        key: dict(zip(("low", "median", "high"), np.percentile(np.array(values) / actual, (25, 50, 75)), strict=True))
        for key, values in found["rates"].items()
    }


def markdown(found: dict) -> str:
    lines = [
        "# Rates on real models",
        "",
        "Written by `experiments/rates.py`; float64, movie reviews of at most 24 tokens.",
    ]
    for name, result in found.items():
        rates = {key: np.array(values) for key, values in result["rates"].items()}
        lines += [
            "",
            f"## {name}: sentences of {', '.join(map(str, result['tokens']))} tokens",
            "",
        ]
        lines += ["Median over sentences [least, largest].", ""]
        lines += ["| layer | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
        for layer in range(len(rates["actual"])):
            cells = [_cell(rates[key][layer]) for key in SHOWN]
            lines.append(f"| {layer + 1} | " + " | ".join(cells) + " |")
        spread = summary(result)
        lines += ["", "Over the actual rate: median over layers and sentences [quartiles].", ""]
        lines += ["| bound | median | quartiles |", "|---|---|---|"]
        lines += [f"| {k} | {v['median']:.3g} | {v['low']:.3g} to {v['high']:.3g} |" for k, v in spread.items()]
        local = result["local"]
        lines += ["", "Local law at consensus, per layer (natural logarithm):", ""]
        lines += [f"- norms ||M_l||, median over sentences: {np.round(np.median(local['norms'], axis=0), 2).tolist()}"]
        for key in ("exponent", "typical exponent"):
            lines.append(f"- {key}: {_cell(np.array(local[key]))}")
        lines.append(
            f"- last cycles of the stack applied to itself: {_cell(np.array(local['cycle exponents'])[:, -4:].ravel())}"
        )
    return "\n".join([*lines, "", "![](rates.png)"]) + "\n"


def _cell(values: np.ndarray) -> str:
    return f"{np.median(values):.3g} [{values.min():.3g}, {values.max():.3g}]"


def draw(found: dict, path: Path) -> None:
    with canvas(5.5 * len(found) + 1.5, 4) as figure:
        axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for axis, (name, result) in zip(axes, found.items(), strict=True):
            for key in reversed(SHOWN):
                values, colour = np.array(result["rates"][key]), SHADES[key]
                layers = 1 + np.arange(len(values))
                axis.fill_between(layers, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.15, linewidth=0)
                axis.plot(layers, np.median(values, axis=1), color=colour, marker=".", label=key)
            axis.axhline(1, color="black", linewidth=0.8)
            log_axis(axis, [np.array(result["rates"][key]) for key in SHOWN])
            layer_axis(axis, 1, len(result["rates"]["actual"]))
            title(axis, name)
        axes[0].set_ylabel("bound of $d_M(H') / d_M(X)$")
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center")
        save(figure, path)


if __name__ == "__main__":
    main()
