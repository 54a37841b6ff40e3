"""Where do the tokens go when a trained layer, or a whole trained encoder, is applied again and again?

    python experiments/fate.py                  # the runs below that results/fate.json does not have yet
    python experiments/fate.py --again          # all of them anew; killed on the way, the first line goes on from there
    python experiments/fate.py --draw           # tables and figures again, from results/fate.json

Time: results/fate.md says it of every run, with the processor; together 20 minutes of processor time, a third of it the
std sweep of the stack. Expect: of minilm-l6 layers 1, 5 and 6 bring every review to consensus, at the rate of the local
law; layer 2 brings most of them to rest in two groups of tokens, layers 3 and 4 none to consensus, and the stack one;
where tokens stay apart, the effective rank of their differences is little above 1. One block in all places does what
it does alone. From an imposed std of 1.2 (stack) to 1.6 (layer 2) on every review reaches consensus.

The maps are those of `jaxsmooth converge --map`, everything in them recomputed each time; docs/fate.md defines them and
reads the numbers. Reviews of 17 to 32 tokens, so that all are in batches of one shape. Each run is kept in
results/fate.json when it ends. Writes results/fate.json, fate.md, fate_shares.png, fate_basin.png and fate_std.png.
"""

import dataclasses
import itertools
import json
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jaxsmooth
from drawing import canvas, remark, save, title
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.files import atomic_write, dumps_strict, strict
from jaxsmooth.results.fate import FATES, MapConvergence
from jaxsmooth.theory.fate.orbit import default_tolerance
from sharing import sharing

RESULTS = Path(__file__).parent / "results"
COLOURS = dict(zip(FATES, ("#D55E00", "#0072B2", "#CC79A7", "#BBBBBB", "#000000"), strict=True))
STDS = (0.25, 0.5, *(round(1 + k / 10, 1) for k in range(11)), 4.0, 8.0, 16.0)


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `jaxsmooth.converge`."""

    model: str
    map: str
    layer: int | None = None
    precision: str = "float32"
    sentences: int = 8
    steps: int = 200
    basin: int = 0
    stds: tuple[float, ...] = ()
    shared: int | None = None
    """The block that stands in the place of every block, as ALBERT has one for all."""

    @property
    def key(self) -> str:
        extra = f", basin of {self.basin} halvings" * bool(self.basin) + ", stds" * bool(self.stds)
        where = "" if self.layer is None else f" {self.layer}"
        where += "" if self.shared is None else f" of block {self.shared} alone"
        return f"{self.model}, {self.map}{where}, {self.precision}, {self.sentences} x {self.steps}{extra}"


RUNS = (
    Run("tiny", "layer"),
    Run("tiny", "stack"),
    Run("minilm-l6", "attention"),
    Run("minilm-l6", "attention-values"),
    Run("minilm-l6", "layer", precision="float64"),
    Run("minilm-l6", "stack", precision="float64"),
    *(Run("minilm-l6", "layer", layer, sentences=4, steps=100, basin=5) for layer in range(1, 7)),
    *(Run("minilm-l6", "layer", layer, "float64", sentences=4, steps=100, stds=STDS) for layer in (2, 4)),
    Run("minilm-l6", "stack", None, "float64", sentences=4, steps=100, stds=STDS),
    *(Run("minilm-l6", "stack", None, "float64", sentences=4, steps=100, shared=block) for block in range(1, 7)),
    Run("e5-small-q4", "layer", sentences=4),
    Run("e5-small-q4", "stack", sentences=4),
    Run("minilm-l6", "stack", sentences=4, steps=60, basin=5),
    *(Run("e5-small-q4", "layer", layer, sentences=4, steps=100, basin=5) for layer in range(1, 13)),
    Run("e5-small-q4", "stack", sentences=4, steps=60, basin=5),
)


@dataclasses.dataclass(frozen=True)
class Args:
    """What to do."""

    data: str = "movie-reviews"
    """Name of a text asset, or a file."""
    draw: bool = False
    """Only tables and figures."""
    again: bool = False
    """Forget those of the runs to make that are there already."""
    only: str = ""
    """Only runs whose name has this in it."""
    out: Path = RESULTS
    """Where the results go."""


def reviews(tokenizer: Any, data: str, count: int) -> list[str]:
    """The first ones of 17 to 32 tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a long one was cut: it is left out anyway
        fitting = (text for text in read_texts(data, 256) if 17 <= int(np.sum(tokenizer([text]).mask)) <= 32)
        return list(itertools.islice(fitting, count))


def follow(run: Run, data: str) -> dict[str, Any]:
    """The run's numbers."""
    with jax.enable_x64(run.precision == "float64"):
        model, tokenizer = jaxsmooth.load(run.model, dtype=run.precision)
        if run.shared is not None:
            model = sharing(model, run.shared)
        texts = reviews(tokenizer, data, run.sentences)
        started, cpu = time.perf_counter(), time.process_time()
        found = jaxsmooth.converge(
            *(model, tokenizer, texts),
            map=run.map,
            layer=run.layer,
            steps=run.steps,
            basin=run.basin,
            std=run.stds or None,
            name=run.model,
            tokens_per_batch=32 * run.sentences,
        )
    seconds = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - cpu}
    return {"run": dataclasses.asdict(run), "note": found.model.note, **seconds, **summary(found)}


def summary(found: MapConvergence) -> dict[str, Any]:
    """Shares and medians of every map, each sentence's fate, sizes of its groups and numbers."""
    maps = [
        {
            "layer": one.layer,
            "fate": list(one.fate),
            "sizes": [[len(group) for group in groups] for groups in one.clusters],
            "numbers": {name: numbers.tolist() for name, numbers in one.numbers.items()},
        }
        for one in found.maps
    ]
    sweeps = [
        {
            "layer": sweep.layer,
            "stds": sweep.stds.tolist(),
            "fate": [list(row) for row in sweep.fate],
            "paper_threshold": sweep.paper_threshold,
            "layer_threshold": sweep.layer_threshold,
            "rate": sweep.rate.tolist(),
        }
        for sweep in found.sweeps
    ]
    tokens = [len(each) for each in found.tokens]
    return {"tokens": tokens, "tolerance": found.tolerance, "maps": maps, "sweeps": sweeps, "device": device()}


def device() -> str:
    """The processor, by the name that Linux gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else jax.devices()[0].device_kind


def table(results: list[dict[str, Any]]) -> str:
    """One line per model, map and layer."""
    head = ["model", "map", "layer", "sentences", *FATES, "steps", "rank of JX", "rate seen", "ρ(M)", "ρ at rest"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for result in results:
        run = result["run"]
        if run["basin"] or run["stds"]:
            continue
        for one in result["maps"]:
            numbers = {name: _numbers(values) for name, values in one["numbers"].items()}
            calm = numbers["row_change"] <= 1e-3  # where the common token is at a fixed point
            cells = [run["model"], run["map"], place(run, one), str(len(one["fate"]))]
            cells += [str(one["fate"].count(fate)) for fate in FATES]
            cells += [_span(numbers["steps"], "%.0f"), _span(numbers["effective_rank"], "%.2f")]
            cells += [_span(numbers[key][calm], "%.4f") for key in ("consensus_rate", "consensus_radius")]
            lines.append(" | ".join([*cells, _span(numbers["radius"], "%.3f")]))
    return "\n".join(f"| {line} |" for line in lines)


def place(run: dict[str, Any], one: dict[str, Any]) -> str:
    """Which blocks the map consists of."""
    return str(one["layer"] or ("all" if run["shared"] is None else f"{run['shared']} in all places"))


def basin_table(results: list[dict[str, Any]]) -> str:
    head = ["model", "map", "layer", "sentences", "largest s that reaches consensus, each sentence", "within"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for result in (each for each in results if each["run"]["basin"]):
        run, one = result["run"], result["maps"][0]
        reached, missed = (_numbers(one["numbers"][f"basin_{end}"]) for end in ("reached", "missed"))
        ends = [f"{r:.3g}" if np.isfinite(m) else f"{r:.3g} or more" for r, m in zip(reached, missed, strict=True)]
        cells = [run["model"], run["map"], place(run, one), str(len(reached)), ", ".join(ends)]
        lines.append(" | ".join([*cells, f"{run['steps']} steps"]))
    return "\n".join(f"| {line} |" for line in lines)


def std_table(results: list[dict[str, Any]]) -> str:
    """One line per std, and the thresholds."""
    sweeps = [(each["run"], sweep) for each in results for sweep in each["sweeps"]]
    names = [f"{run['model']}, {run['map']} {sweep['layer'] or ''}".strip() for run, sweep in sweeps]
    lines = [" | ".join(["imposed std", *names]), " | ".join(["---"] * (len(names) + 1))]
    for k, std in enumerate(STDS):
        cells = []
        for fate, rates in ((sweep["fate"][k], _numbers(sweep["rate"][k])) for _, sweep in sweeps):
            counted = ", ".join(f"{fate.count(one)} {one}" for one in FATES if one in fate)
            cells.append(f"{counted} ({_rates(rates, sweeps[len(cells)][0]['precision'])})")
        lines.append(" | ".join([f"{std:g}", *cells]))
    for kind, name in (("paper", "paper's threshold"), ("layer", "L1's threshold")):
        lines.append(" | ".join([name, *(f"{sweep[f'{kind}_threshold']:.3g}" for _, sweep in sweeps)]))
    return "\n".join(f"| {line} |" for line in lines)


def _rates(rates: np.ndarray, precision: str) -> str:
    """Of d_M next to consensus; 0 says that a step leaves no more than rounding (see `approach_consensus`)."""
    if (rates == 0).all():
        size = default_tolerance(np.dtype(precision)) ** 0.5
        return f"below {32 * np.finfo(precision).eps / size:.0e}"
    return _span(rates, "%.2g")


def run_table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["run | seconds | of processor time | processor", "--- | --- | --- | ---"]
    for key, result in results.items():
        lines.append(f"{key} | {result['seconds']:.0f} | {result['processor_seconds']:.0f} | {result['device']}")
    return "\n".join(f"| {line} |" for line in lines)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _span(values: np.ndarray, form: str) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "–"
    low, middle, high = (form % x for x in (known.min(), np.median(known), known.max()))
    return middle if low == high else f"{middle} [{low}, {high}]"


def draw(results: list[dict[str, Any]], out: Path) -> None:
    """Shares of fates: a panel for every model and map."""
    panels: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for each in (each for each in results if not each["run"]["basin"] and not each["run"]["stds"]):
        run = each["run"]
        name = f"{run['model']}, {run['map']}" + ("" if run["shared"] is None else " of one block in all places")
        panels.setdefault(name, []).extend((place(run, one).split()[0], one) for one in each["maps"])
    with canvas(12.0, 1.6 + 1.9 * ((len(panels) + 1) // 2)) as figure:
        grid = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False)
        for axes, (name, maps) in zip(grid.ravel(), panels.items(), strict=False):
            bottom = np.zeros(len(maps))
            for fate in FATES:
                share = np.array([one["fate"].count(fate) / len(one["fate"]) for _, one in maps])
                names = [where for where, _ in maps]
                axes.bar(names, share, bottom=bottom, color=COLOURS[fate], label=fate, width=0.7)
                bottom += share
            axes.set(ylim=(0, 1), ylabel="share", xlabel="layer", xlim=(-0.6, max(len(maps), 4) - 0.4))
            title(axes, name)
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(FATES))
        remark(figure, "Each bar: one map applied again and again to reviews of 17 to 32 tokens; where the tokens go.")
        save(figure, out / "fate_shares.png")
    draw_basins([each for each in results if each["run"]["basin"]], out)
    draw_stds([(each["run"], sweep) for each in results for sweep in each["sweeps"]], out)


def draw_basins(results: list[dict[str, Any]], out: Path) -> None:
    """The largest shares s of every review: a panel for every model."""
    models = list(dict.fromkeys(each["run"]["model"] for each in results))
    with canvas(8.0, 1.2 + 3.2 * max(1, len(models))) as figure:
        grid = figure.subplots(max(1, len(models)), 1, squeeze=False)[:, 0]
        for axes, model in zip(grid, models, strict=False):
            mine = [each for each in results if each["run"]["model"] == model]
            for where, each in enumerate(mine):
                numbers = each["maps"][0]["numbers"]
                reached, missed = _numbers(numbers["basin_reached"]), _numbers(numbers["basin_missed"])
                open_ended = ~np.isfinite(missed)
                at = where + np.linspace(-0.15, 0.15, len(reached))
                axes.plot(at[open_ended], reached[open_ended], "^", color="#D55E00")
                axes.plot(at[~open_ended], np.maximum(reached[~open_ended], 0.005), "o", color="#0072B2")
            axes.axhline(1, color="#555555", linestyle="--", linewidth=1)
            axes.set_xticks(range(len(mine)), [str(each["maps"][0]["layer"] or "stack") for each in mine])
            axes.set(yscale="log", xlabel="layer", ylabel="largest s that reaches consensus", ylim=(0.004, 6))
            title(axes, f"{model}: how near must tokens be to become equal?")
        told = (
            "A dot: a review X started at mean + s (X - mean); at 0.005: no s did. Triangle: the largest s tried did."
        )
        remark(figure, told)
        save(figure, out / "fate_basin.png")


def draw_stds(sweeps: list[tuple[dict[str, Any], dict[str, Any]]], out: Path) -> None:
    """Shares of fates over the imposed std, and next to consensus the rate."""
    with canvas(4.6 * max(1, len(sweeps)), 6.6) as figure:
        grid = figure.subplots(2, max(1, len(sweeps)), squeeze=False, sharex=True)
        handles: dict[str, Any] = {}
        for (above, below), (run, sweep) in zip(grid.T, sweeps, strict=False):
            for fate in FATES:
                share = [row.count(fate) / len(row) for row in sweep["fate"]]
                if any(share):
                    handles[fate] = above.plot(sweep["stds"], share, "o-", color=COLOURS[fate])[0]
            rates = np.array([_numbers(row) for row in sweep["rate"]])
            below.plot(sweep["stds"], np.where(rates > 0, rates, np.nan), ".", color="#0072B2")
            below.axhline(1, color="#555555", linewidth=1, linestyle=":")
            for axes in (above, below):
                for kind, style in (("paper's form", "-"), ("own constants", "--")):
                    at = sweep["paper_threshold" if style == "-" else "layer_threshold"]
                    handles[f"threshold, {kind}"] = axes.axvline(at, color="#009E73", linestyle=style)
            above.set(xscale="log", ylabel="share of reviews", ylim=(-0.03, 1.03))
            below.set(yscale="log", xlabel="imposed std", ylabel="rate next to consensus")
            below.xaxis.set_major_formatter("{x:g}")
            title(above, f"{run['map']} {sweep['layer'] or ''}")
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
        remark(figure, "minilm-l6: both LayerNorms of every block divide by the imposed std, whatever their input is.")
        save(figure, out / "fate_std.png")


def main(args: Args) -> None:
    path = args.out / "fate.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {run.key: stored[run.key] for run in RUNS if run.key in stored}  # no run of another list
    if not args.draw:
        chosen = [run for run in RUNS if args.only in run.key]
        if args.again:
            known = {key: each for key, each in known.items() if key not in {run.key for run in chosen}}
        for run in chosen:
            if known.get(run.key, {}).get("run") == strict(dataclasses.asdict(run)):
                continue
            known[run.key] = strict(follow(run, args.data))
            atomic_write(path, dumps_strict(known, indent=None) + "\n")
            print(f"{run.key}: {known[run.key]['seconds']:.0f} s", flush=True)
    kept = {run.key: known[run.key] for run in RUNS if run.key in known}  # in the order of the list
    results = list(kept.values())
    draw(results, args.out)
    text = f"""# The fate of the tokens

`python experiments/fate.py`, {args.data}: reviews of 17 to 32 tokens. Counts of sentences by fate; of numbers the
median [least, largest] over sentences. Rates where the common token has come to rest, to 1e-3 per step.

{table(results)}

## How near tokens must be to become equal

{basin_table(results)}

## Imposed std: where 4 sentences go (and the factor of d_M per step next to consensus)

{std_table(results)}

## The runs

{run_table(kept)}

![](fate_shares.png)
![](fate_basin.png)
![](fate_std.png)
"""
    atomic_write(args.out / "fate.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
