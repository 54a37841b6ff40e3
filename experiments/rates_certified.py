"""A block that provably contracts: the data-level rate of one layer of a real model, below 1 in ball arithmetic.

Shows:    theorem 3 of docs/rates.md evaluated with Arb's error balls on the float64 arrays of one layer, as exact
          inputs: X, Y, the pre-activations, the activations, W_2, b_2 and gamma_2. Nothing that it prints rests on
          floating-point rounding; LAPACK's singular value decompositions enter as guesses that Arb then verifies.
Command:  python experiments/rates_certified.py
Hardware: 2 CPU cores, about two minutes a sentence.
Expect:   an upper bound of d_M(H') / d_M(X) below 1 for the last layer of e5-small-q4, on every sentence.
Writes results/rates_certified.json, rates_certified.png and rates_certified.md.
"""

import dataclasses
import json
from pathlib import Path

import flint
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flint import arb, arb_mat

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth import Batch
from jaxsmooth.files import atomic_write
from jaxsmooth.theory.rates import activation_slopes

BITS = 100


@dataclasses.dataclass(frozen=True)
class Args:
    """What to certify."""

    model: str = "e5-small-q4"
    """Name of a model asset, a directory or a hub id."""
    layer: int = 12
    """Counting from 1."""
    texts: tuple[str, ...] = ("Effective but too tepid biopic", "A sentimental mess that never rings true.")
    """The sentences, by default movie reviews."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def main(args: Args) -> None:
    jax.config.update("jax_enable_x64", True)
    flint.ctx.prec = BITS
    rows = []
    for text in args.texts:
        rows.append({"text": text, **certified_rate(**_layer_arrays(args.model, args.layer - 1, text))})
        print(rows[-1], flush=True)
    found = {"model": args.model, "layer": args.layer, "sentences": rows}
    atomic_write(args.out / "rates_certified.json", json.dumps(found, indent=1) + "\n")
    draw(args, rows, args.out / "rates_certified.png")
    atomic_write(args.out / "rates_certified.md", markdown(args, rows))


def draw(args: Args, rows: list[dict], path: Path) -> None:
    with canvas(7.5, 1.6 + 0.7 * len(rows)) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))
        axes.barh(places + 0.2, [row["bound"] for row in rows], 0.36, color="#D55E00", label="certified bound")
        axes.barh(places - 0.2, [row["actual"] for row in rows], 0.36, color="#000000", label="actual rate")
        axes.axvline(1, color="#3B7A57", linestyle="--", linewidth=1.2)
        axes.set_yticks(places, [row["text"] for row in rows])
        axes.set(xlim=(0, 1.1), xlabel="$d_M(H') / d_M(X)$")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        title(axes, f"{args.model}, layer {args.layer}")
        remark(figure, "Upper ends in ball arithmetic; left of the dashed line the block provably contracts.")
        save(figure, path)


def markdown(args: Args, rows: list[dict]) -> str:
    lines = [
        "# A certified rate below 1",
        "",
        f"`python experiments/rates_certified.py --model {args.model} --layer {args.layer}`: theorem 3 of",
        f"docs/rates.md in Arb, {BITS} bits, on the float64 arrays of the layer taken as exact. Both are upper ends.",
        "",
        "| sentence | tokens | certified bound | actual rate |",
        "|---|---|---|---|",
        *(f"| {row['text']} | {row['tokens']} | {row['bound']:.4f} | {row['actual']:.4f} |" for row in rows),
    ]
    return "\n".join([*lines, "", "![](rates_certified.png)", ""])


def _layer_arrays(name: str, layer: int, text: str) -> dict[str, np.ndarray]:
    model, tokenizer = jaxsmooth.load(name)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
    batch = tokenizer([text])
    length = int(batch.mask.sum())
    batch = Batch(*(leaf[:, :length] for leaf in (batch.tokens, batch.segments, batch.mask)))
    _, traces = jaxsmooth.encode(model, batch, collect=lambda trace: trace)
    trace = jax.tree.map(lambda leaf: leaf[layer], traces)
    block = trace.block
    pre = trace.normed @ block.up.kernel + block.up.bias[None, None]
    return {
        "hidden": np.asarray(trace.input[0]),
        "normed": np.asarray(trace.normed[0]),
        "pre": np.asarray(pre[0]),
        "active": np.asarray(activation_slopes.activate(model.config.activation, pre)[0]),
        "down": np.asarray(block.down.kernel),
        "down_bias": np.asarray(block.down.bias),
        "gain": np.asarray(block.norm_mlp.scale),
        "eps": model.config.eps,
    }


def certified_rate(
    hidden: np.ndarray,
    normed: np.ndarray,
    pre: np.ndarray,
    active: np.ndarray,
    down: np.ndarray,
    down_bias: np.ndarray,
    gain: np.ndarray,
    eps: float,
) -> dict[str, float]:
    """Upper ends of theorem 3's bound (its triangle form) and of the actual rate, arrays taken as exact."""
    n, d = hidden.shape
    centre = _balls(np.eye(d)) - arb_mat(d, d, [arb(1) / d] * (d * d))
    out = centred_rows(_balls(down), gain)
    pre_mlp = _balls(normed) + _balls(active) * _balls(down) + _balls(np.ones((n, 1))) * _balls(down_bias[None])
    centred = pre_mlp * centre
    stds = [(sum((centred[i, k] ** 2 for k in range(d)), arb(0)) / d + arb(eps)).sqrt() for i in range(n)]
    scaled = arb_mat([[centred[i, k] * arb(float(gain[k])) / stds[i] for k in range(d)] for i in range(n)])
    squares = [sum((scaled[i, k] ** 2 for k in range(d)), arb(0)) for i in range(n)]
    root = _pair_root(stds)
    # Any slopes and any balance are allowed, so floating-point ones are exact choices.
    middle = np.array([[float(root[i, j].mid()) for j in range(n)] for i in range(n)])
    wide, fitted = middle @ active, middle @ pre
    slope = (fitted * wide).sum(axis=0) / (fitted * fitted).sum(axis=0)
    guess = wide - fitted * slope
    balance = np.sqrt(np.linalg.norm(guess, axis=0) / np.linalg.norm(down, axis=1))
    fitted_rows = _scaled_columns(_balls(pre), slope)
    inverse = 1 / balance
    residual = _scaled_columns(root * (_balls(active) - fitted_rows), inverse)
    linear = root * (centred_rows(_balls(normed), gain) + fitted_rows * out)
    own, rows = _singular_values(residual), _singular_values(_divided_rows(out, inverse))
    rho = sum(((s * r) ** 2 for s, r in zip(own, rows, strict=False)), arb(0)).sqrt()
    correction = _correction(stds, squares)
    before = _distance_squared(_balls(hidden))
    bound = (((_frobenius(linear) + rho) ** 2 + correction) / before).sqrt()
    actual = (_distance_squared(scaled) / before).sqrt()
    return {"tokens": n, "bound": _upper(bound), "actual": _upper(actual), "bits": BITS}


def centred_rows(matrix: arb_mat, gain: np.ndarray) -> arb_mat:
    """Every row less its mean, times the gain."""
    rows = []
    for row in matrix.tolist():
        mean = sum(row, arb(0)) / len(row)
        rows.append([(x - mean) * arb(float(g)) for x, g in zip(row, gain, strict=True)])
    return arb_mat(rows)


def _pair_root(stds: list) -> arb_mat:
    n = len(stds)
    weights = [1 / s for s in stds]
    total = sum(weights, arb(0))
    lead = [(w * total / n).sqrt() for w in weights]
    return arb_mat([[lead[i] * (arb(i == j) - weights[j] / total) for j in range(n)] for i in range(n)])


def _correction(stds: list, squares: list) -> arb:
    n = len(stds)
    total = arb(0)
    for i in range(n):
        for j in range(i + 1, n):
            apart = (stds[j] - stds[i]) * (squares[i] * stds[i] - squares[j] * stds[j])
            total += apart / (stds[i] * stds[j])
    return total / n


def _singular_values(matrix: arb_mat) -> list:
    """Upper bounds of all singular values, descending: s_i(USV^T) <= ||U|| S_i ||V||, and Weyl for what is left."""
    middle = np.array([[float(x.mid()) for x in row] for row in matrix.tolist()])
    left, values, right = np.linalg.svd(middle, full_matrices=False)
    rebuilt = _balls(left * values) * _balls(right)
    # left * values is rounded; its exact quotient by `values` is within a relative 2^-53 of `left`.
    missed = _frobenius(matrix - rebuilt) + arb(float(np.linalg.norm(values))) * arb(2) ** -50
    stretch = ((1 + _defect(_balls(left.T))) * (1 + _defect(_balls(right)))).sqrt()
    return [arb(float(v)) * stretch + missed for v in values]


def _defect(frame: arb_mat) -> arb:
    gram = frame * frame.transpose()
    return _frobenius(gram - _balls(np.eye(gram.nrows())))


def _balls(matrix: np.ndarray) -> arb_mat:
    return arb_mat([[arb(float(x)) for x in row] for row in matrix])


def _scaled_columns(matrix: arb_mat, scale: np.ndarray) -> arb_mat:
    factors = [arb(float(s)) for s in scale]
    return arb_mat([[x * f for x, f in zip(row, factors, strict=True)] for row in matrix.tolist()])


def _divided_rows(matrix: arb_mat, scale: np.ndarray) -> arb_mat:
    return arb_mat([[x / arb(float(s)) for x in row] for row, s in zip(matrix.tolist(), scale, strict=True)])


def _frobenius(matrix: arb_mat) -> arb:
    return sum((x * x for x in matrix.entries()), arb(0)).sqrt()


def _distance_squared(matrix: arb_mat) -> arb:
    rows = matrix.tolist()
    total = arb(0)
    for column in zip(*rows, strict=True):
        mean = sum(column, arb(0)) / len(column)
        total += sum(((x - mean) ** 2 for x in column), arb(0))
    return total


def _upper(value: arb) -> float:
    """A float no smaller than any number in the ball."""
    return float(np.nextafter(float(value.upper()), np.inf))


if __name__ == "__main__":
    main(tyro.cli(Args))
