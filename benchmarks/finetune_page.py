"""The results of finetune_accuracy.py for reading: a table and a figure.

    python benchmarks/finetune_page.py

Writes finetune_accuracy.md and finetune_accuracy.png beside benchmarks/results/finetune_accuracy.json.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxsmooth.report.shown import style

RESULTS = Path(__file__).parent / "results"
LOOK = {"ours": {"color": "#0072B2", "linestyle": "-"}, "torch": {"color": "#E69F00", "linestyle": "--"}}


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Fine-tuned accuracy, ours against torch",
        "",
        f"`{result['command']}`, {result['machine']}. minilm-l6 on movie-reviews, one epoch, batches of "
        f"{result['settings']['batch_size']} of at most {result['settings']['max_length']} tokens, dropout 0.1: the "
        "same weights, initial head, batches, order, schedule and length on both sides; only the dropout masks differ. "
        "Accuracy of the last step, not of the best. Other programs ran beside (load: processes waiting at the end), "
        "so seconds say nothing about speed.",
        "",
        "| side | seed | steps | validation accuracy | test accuracy | test Matthews | seconds | load | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in ordered(result):
        scores = (
            f"{entry['validation']['accuracy']:.2%} | {entry['test']['accuracy']:.2%} | {entry['test']['matthews']:.3f}"
        )
        origin = f"{entry['seconds']:,.0f} | {entry['load']:.1f} | {entry['date']}"
        lines.append(f"| {entry['side']} | {entry['seed']} | {entry['steps']} | {scores} | {origin} |")
    for split in ("validation", "test"):
        means = {side: mean(result, side, split) for side in LOOK}
        lines += [
            "",
            f"Mean on {split}: ours {means['ours']:.2%}, torch {means['torch']:.2%}, "
            f"difference {100 * (means['ours'] - means['torch']):+.2f} points.",
        ]
    lines += [
        "",
        f"Logistic regression on the frozen encoder's mean tokens: {mean(result, 'frozen', 'validation'):.2%} and "
        f"{mean(result, 'frozen', 'test'):.2%}.",
        "",
        "![Training loss, validation accuracy and distance to consensus over steps](finetune_accuracy.png)",
    ]
    return "\n".join(lines) + "\n"


def ordered(result: dict[str, Any]) -> list[dict[str, Any]]:
    entries = [entry for entry in result["entries"] if entry["side"] in LOOK]
    return sorted(entries, key=lambda entry: (entry["side"], entry["seed"]))


def mean(result: dict[str, Any], side: str, split: str) -> float:
    return statistics.mean(entry[split]["accuracy"] for entry in result["entries"] if entry["side"] == side)


def draw(result: dict[str, Any], path: Path) -> None:
    plt.rcParams.update(style.matplotlib())
    figure, (losses, scores, distances) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for entry in ordered(result):
        look = LOOK[entry["side"]]
        losses.plot(*zip(*entry.get("loss", [(0, float("nan"))]), strict=True), **look, linewidth=1)
        if entry["side"] == "ours":
            steps = [record["step"] for record in entry["curve"]]
            scores.plot(steps, [record["validation/accuracy"] for record in entry["curve"]], **look, marker="o")
            draw_distances(distances, steps, entry)
        else:
            scores.plot(entry["steps"], entry["validation"]["accuracy"], color=look["color"], marker="D", linestyle="")
    frozen = mean(result, "frozen", "validation")
    scores.axhline(frozen, color="grey", linewidth=1)
    scores.annotate("frozen features, logistic regression", (5, frozen + 0.002), color="grey", fontsize=8)
    labels = {losses: "training loss, mean over log interval", scores: "validation accuracy"}
    labels[distances] = r"$d_M(H) \,/\, \|H\|_F$ on fixed reviews (ours)"
    for axes, label in labels.items():
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.set_xlim(0)
    sides = [Line2D([], [], **look, label=f"{side}, one line per seed") for side, look in LOOK.items()]
    losses.legend(handles=sides, fontsize=8)
    ends = Line2D([], [], color=LOOK["torch"]["color"], marker="D", linestyle="", label="torch, last step")
    scores.legend(handles=[sides[0], ends], fontsize=8, loc="upper left")
    figure.suptitle("minilm-l6 fine-tuned on movie-reviews: ours against torch on the same batches")
    figure.savefig(path)


def draw_distances(axes: Axes, steps: list[int], entry: dict[str, Any]) -> None:
    layers = len(entry["curve"][0]["probe/relative_distance"])
    for layer in range(layers):
        values = [record["probe/relative_distance"][layer] for record in entry["curve"]]
        label = f"layer {layer}" if entry["seed"] == 0 else None
        axes.plot(steps, values, color=plt.get_cmap("viridis")(layer / layers), marker=".", linewidth=1, label=label)
    if entry["seed"] == 0:
        axes.legend(fontsize=7, loc="lower left")


def main() -> None:
    result = json.loads((RESULTS / "finetune_accuracy.json").read_text())
    draw(result, RESULTS / "finetune_accuracy.png")
    (RESULTS / "finetune_accuracy.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
