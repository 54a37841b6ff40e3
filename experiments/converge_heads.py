"""Where does attention go when it is applied again and again, and how fast? Prediction against observation, every head.

    python experiments/converge_heads.py            # minilm-l6 and e5-small-q4, 8 movie reviews

Time: 7 minutes of processor time on 2 CPU cores, double precision. Expect: of the model's own attention (full) every
head reaches its limit 1 pi^T V at the rate of its second eigenvalue, and none needs more than twice the steps to 1e-3
that it promises. Under a causal mask the limit is the first token, and under a window of 4 the rate still holds in the
end; but in 2 to 6 of 100 heads of the first and 13 to 25 of the second the steps are more than twice as many, up to 26
times: the transient of a matrix far from normal. The symmetric normalisation, which a graph convolution has, has no
transient: no head needs more steps than promised. Dobrushin's and Birkhoff's bounds hold at every step of every case.

Each head of each layer on each sentence is one dot. Its values V are iterated by its attention A: the predicted rate is
the spectral radius of A - lim A^k (bracketed from above without an eigenvalue solver), the observed one the contraction
per step over the last half of 256 steps; the predicted steps are those to 1e-3 if every step contracted by that rate.
Writes results/converge_heads.json, converge_heads.png and converge_heads.md.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write
from jaxsmooth.studies import converge

SAID = {
    "limit": "limit",
    "rate": "time scale to a tenth",
    "steps": "steps within twice",
    "ergodicity": "Dobrushin",
    "birkhoff": "Birkhoff",
}
"""What is predicted -> in words. The first three hold, fail or are not decided; the bounds hold or fail."""
HELD = tuple(f"{name}_held" for name in SAID)
FAILED = tuple(f"{name}_failed" for name in ("limit", "rate", "steps"))


@dataclasses.dataclass(frozen=True)
class Args:
    """What to iterate."""

    models: tuple[str, ...] = ("minilm-l6", "e5-small-q4")
    """Model assets, directories or hub ids."""
    data: str = "movie-reviews"
    """Name of a text asset, or a file."""
    limit: int = 8
    """Number of sentences."""
    window: int = 4
    """Tokens in the sliding window, the query included."""
    steps: int = 256
    """How often each matrix is applied."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


def iterate_heads(args: Args, name: str) -> dict[str, np.ndarray]:
    """The numbers of `theory.Convergence`, name -> [layers operators sentences heads]."""
    model, tokenizer = jaxsmooth.load(name)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
    parts = []
    for encoded in tokenizer.batches(read_texts(args.data, args.limit), tokens_per_batch=256):
        found = converge.iterate_heads(model, encoded.batch, jnp.int32(args.window), steps=args.steps, tolerance=1e-3)
        del found["finite"]
        parts.append({key: np.asarray(values)[:, :, : len(encoded.indices)] for key, values in found.items()})
    return {key: np.concatenate([part[key] for part in parts], axis=2) for key in parts[0]}


def summarise(found: dict[str, np.ndarray]) -> dict[str, dict]:
    """Per operator: shares of cases in which a prediction held, by case and by layer, and how far off it was."""
    summary = {}
    for place, operator in enumerate(converge.OPERATORS):
        own = {key: values[:, place] for key, values in found.items()}
        error = np.abs(own["observed_rate"] - own["predicted_rate"])
        steps = own["observed_steps"] / np.maximum(own["predicted_steps"], 1)
        summary[operator] = {
            "cases": int(own["classes"].size),
            "several_classes": float(np.mean(own["classes"] > 1)),
            "arrived": float(np.mean(own["arrived"])),
            "held": {key: float(np.mean(own[key])) for key in HELD},
            "failed": {key: float(np.mean(own[key])) for key in FAILED},
            "held_by_layer": {key: np.mean(own[key], axis=(1, 2)).tolist() for key in HELD},
            "predicted_rate": _quantiles(own["predicted_rate"]),
            "observed_rate": _quantiles(own["observed_rate"]),
            "rate_error": _quantiles(error),
            "mixing_rate": _quantiles(own["mixing_rate"]),
            "ergodicity": _quantiles(own["ergodicity"]),
            "largest_growth": _quantiles(own["largest_growth"]),
            "observed_over_predicted_steps": _quantiles(steps),
            "limit_error": _quantiles(own["limit_error"]),
        }
    return summary


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values[np.isfinite(values)], (0, 25, 50, 75, 100))]


def draw(cases: dict[str, dict[str, np.ndarray]], args: Args, path: Path) -> None:
    settings = (
        ("predicted_rate", "observed_rate", "contraction per step", (0, 1)),
        ("predicted_steps", "observed_steps", f"steps to 1e-3, at most {args.steps} seen", (0.8, 2 * args.steps)),
    )
    with canvas(17.0, 5.0 * len(cases) * 1.6) as figure:
        grid = figure.subplots(2 * len(cases), len(converge.OPERATORS), squeeze=False)
        for row, (name, found) in enumerate(cases.items()):
            layers = np.broadcast_to(np.arange(len(found["classes"]))[:, None, None] + 1, found["classes"][:, 0].shape)
            for column, operator in enumerate(converge.OPERATORS):
                for below, (first, second, label, (low, high)) in enumerate(settings):
                    axes = grid[2 * row + below, column]
                    x, y = found[first][:, column], found[second][:, column]
                    dots = axes.scatter(x, y, c=layers, s=7, cmap="viridis", alpha=0.6, linewidths=0)
                    axes.plot([low, high], [low, high], color="#D55E00", linewidth=1.2, linestyle="--")
                    if below:
                        axes.set(xscale="log", yscale="log")
                    axes.set(xlim=(low, high), ylim=(low, high), xlabel=f"predicted {label}")
                    axes.set_ylabel("observed")
                    words = f"{name}, {operator}" + (f" of {args.window}" if operator == "window" else "")
                    title(axes, words)
            figure.colorbar(dots, ax=grid[2 * row : 2 * row + 2, -1], label="layer", fraction=0.04)
        words = "One dot: one head on one sentence; on the dashed line the eigenvalue's prediction is exact, above it "
        remark(figure, words + "(steps) the transient is what the eigenvalue does not see.")
        save(figure, path)


def table(summary: dict[str, dict[str, dict]]) -> str:
    """Shares and medians, one line per model and operator."""
    head = ["model", "operator", "cases", *SAID.values(), "rate error", "steps / predicted", "growth"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for name, operators in summary.items():
        for operator, found in operators.items():
            cells = [name, operator, f"{found['cases']:,}", *(_shares(found, each) for each in SAID)]
            cells += [_span(found[key]) for key in ("rate_error", "observed_over_predicted_steps", "largest_growth")]
            lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _shares(found: dict, name: str) -> str:
    """Held, and where that is not all of them, failed and not decided."""
    held, failed = found["held"][f"{name}_held"], found["failed"].get(f"{name}_failed")
    if held == 1:
        return "all"
    failed = 1 - held if failed is None else failed
    return f"{100 * held:.1f} % ({100 * failed:.1f} %, {100 * abs(1 - held - failed):.1f} %)"


def _span(quantiles: list[float]) -> str:
    return f"{quantiles[2]:.2g} [{quantiles[4]:.2g}]"


def main(args: Args) -> None:
    started = time.perf_counter()
    with jax.enable_x64(True):
        cases = {name: iterate_heads(args, name) for name in args.models}
    summary = {name: summarise(found) for name, found in cases.items()}
    seconds = round(time.perf_counter() - started, 1)
    result = {
        "data": args.data,
        "sentences": args.limit,
        "window": args.window,
        "steps": args.steps,
        "seconds": seconds,
        "versions": {"jax": jax.__version__, "device": jax.devices()[0].device_kind},
        "quantiles": (0, 25, 50, 75, 100),
        "models": summary,
    }
    atomic_write(args.out / "converge_heads.json", json.dumps(result, indent=1) + "\n")
    draw(cases, args, args.out / "converge_heads.png")
    text = f"""# Attention iterated: prediction against observation

`python experiments/converge_heads.py --models {" ".join(args.models)} --data {args.data} --limit {args.limit}
--window {args.window} --steps {args.steps}`: double precision, {seconds} s on {result["versions"]["device"]}.

Share of cases (one head of one layer on one sentence) in which each prediction held; where not in all, in parentheses
the shares in which it failed and in which so many steps do not decide it. Then median [largest] of
|observed - predicted rate|, of observed over predicted steps to 1e-3, and of the largest distance from the limit on
the way, over the first.

{table(summary)}

![](converge_heads.png)
"""
    atomic_write(args.out / "converge_heads.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
