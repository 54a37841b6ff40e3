"""The PNG figures of quantities per layer, and the one picture that answers the question at a glance."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..results.diagnosis import Diagnosis
from ..results.summaries import RATES
from .format import digits, finite
from .heatmaps import exemplar_cosine_figure, mixing_rate_figure
from .style import (
    COLOURS,
    CONTRACTION,
    band,
    canvas,
    drawable,
    layer_axis,
    legend_below,
    log_axis,
    note,
    positive,
    save,
    say_empty,
    title,
)
from .verdict import verdict

RATE_LABELS = {
    "actual": "actual rate",
    "L4": "L4  this data",
    "L3": "L3  operator norm",
    "L2b": "L2b  weighted pairs",
    "L2": "L2  refined norms",
    "L1": "L1  theorem, per layer",
    "L0": "L0  theorem, global",
}

PRE_NORM_LABELS = {**RATE_LABELS, "L1": "L1  pre-LN blocks"}

_BANDS = "Line: mean over sentences; dark band: ± 1 standard deviation; light band: smallest to largest"

_MARKERS = {"actual": "o", "L4": "v", "L3": "D", "L2b": "s", "L2": "P", "L1": "^", "L0": "X"}


def write_figures(diagnosis: Diagnosis, folder: Path) -> dict[str, Path]:
    """Draws every figure of the report.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.
      folder: where the PNG files go; made if missing.

    Returns:
      Name -> path of the file: overview, similarity, norms, ladder, mixing_rate and, if the diagnosis has an
      exemplar, exemplar_cosine.

    Raises:
      OSError: the folder cannot be written to.
    """
    makers = {
        "overview": overview_figure,
        "similarity": similarity_figure,
        "norms": norms_figure,
        "ladder": ladder_figure,
        "mixing_rate": mixing_rate_figure,
    }
    if diagnosis.exemplar is not None:
        makers["exemplar_cosine"] = exemplar_cosine_figure
    return {name: make(diagnosis, folder / f"{name}.png") for name, make in makers.items()}


def overview_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """One wide picture: how similar the tokens become, and how far the theory's bounds are from that."""
    with canvas(13.5, 5.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
        _similarity(left, diagnosis)
        title(left, "Do the tokens become the same?")
        _ladder(right, diagnosis, ("actual", "L4", "L3", "L1", "L0"))
        _gap(right, diagnosis, "L1", 0.2, 0.8)
        _gap(right, diagnosis, "L4", 0.6, 0.45)
        title(right, "Does the theory explain it?")
        heading = figure.suptitle(drawable(verdict(diagnosis).headline, 110), fontsize=16, fontweight="bold")
        heading.set_parse_math(False)
        note(figure, diagnosis, _BANDS)
        return save(figure, path)


def similarity_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """Cosine similarity and relative distance of the tokens, layer by layer."""
    with canvas(8.0, 5.6) as figure:
        axes = figure.subplots()
        _similarity(axes, diagnosis)
        title(axes, f"Similarity of the tokens in {diagnosis.model.name}")
        note(figure, diagnosis, _BANDS)
        return save(figure, path)


def ladder_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """Actual contraction rate of every block against its upper bounds."""
    with canvas(9.5, 5.5) as figure:
        axes = figure.subplots()
        _ladder(axes, diagnosis, RATES)
        title(axes, f"Contraction per layer of {diagnosis.model.name}")
        note(
            figure,
            diagnosis,
            "Line: mean over sentences, its median over layers in brackets; grey: smallest to largest sentence",
        )
        return save(figure, path)


def norms_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """LayerNorm standard deviations, and their product against the theorem's threshold."""
    with canvas(12.5, 5.4) as figure:
        left, right = figure.subplots(1, 2)
        band(left, diagnosis.std_attn, 1, COLOURS["std_attn"], "attention LayerNorm")
        band(left, diagnosis.std_mlp, 1, COLOURS["std_mlp"], "MLP LayerNorm", marker="s")
        left.set_ylabel("std of a token's features (log scale)")
        log_axis(left, [diagnosis.std_attn.mean, diagnosis.std_mlp.mean])
        title(left, "What the LayerNorms divide by")
        band(right, diagnosis.threshold, 1, COLOURS["threshold"], "threshold of the theorem (L1)", marker="^")
        band(right, diagnosis.std_product, 1, COLOURS["std_product"], "product of the smallest stds")
        right.set_ylabel("product of two stds (log scale)")
        log_axis(right, [diagnosis.std_product.mean, diagnosis.threshold.mean])
        title(right, "Is the product above the threshold?")
        for axes in (left, right):
            layer_axis(axes, 1, diagnosis.std_attn.mean.size)
            legend_below(axes, 2)
        note(figure, diagnosis, f"{_BANDS} (left: smallest to largest token)")
        return save(figure, path)


def _similarity(axes: Axes, diagnosis: Diagnosis) -> None:
    band(axes, diagnosis.cosine_similarity, 0, COLOURS["cosine"], "cosine similarity of two tokens (1 = same)")
    band(
        axes, diagnosis.relative_distance, 0, COLOURS["distance"], "relative distance $d_M$/‖H‖ (0 = same)", marker="s"
    )
    cosine = diagnosis.cosine_similarity.mean
    for layer, shift, side in ((0, -20, "left"), (cosine.size - 1, 11, "right")):
        if np.isfinite(cosine[layer]):
            axes.annotate(
                digits(cosine[layer]),
                (layer, cosine[layer]),
                xytext=(-5 if side == "left" else 5, shift),
                textcoords="offset points",
                ha=side,
                color=COLOURS["cosine"],
                fontsize=13,
                fontweight="bold",
            )
    lowest = min(finite(diagnosis.cosine_similarity.min).tolist(), default=0.0)
    axes.set_ylim(min(-0.12, lowest - 0.1), 1.05)
    axes.set_ylabel("mean over sentences (no unit)")
    layer_axis(axes, 0, cosine.size - 1)
    legend_below(axes, 1)
    if not finite(cosine).size:
        say_empty(axes)


def _ladder(axes: Axes, diagnosis: Diagnosis, names: tuple[str, ...]) -> None:
    layers = np.arange(1, diagnosis.rates["actual"].mean.size + 1)
    for name in reversed(names):
        axes.plot(
            layers,
            positive(diagnosis.rates[name].mean),
            color=COLOURS[name],
            marker=_MARKERS[name],
            linewidth=3.0 if name == "actual" else 2.0,
            label=_rate_label(diagnosis, name),
        )
    actual = diagnosis.rates["actual"]
    axes.fill_between(
        layers, positive(actual.min), positive(actual.max), color=COLOURS["actual"], alpha=0.12, linewidth=0
    )
    axes.set_ylabel("$d_M$ after the block / $d_M$ before it (log scale)")
    log_axis(axes, [diagnosis.rates[name].mean for name in names])
    _shade_contraction(axes)
    layer_axis(axes, 1, layers.size)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="rate (median layer)", alignment="left")


def _shade_contraction(axes: Axes) -> None:
    low, high = axes.get_ylim()
    low = min(low, 0.2)
    axes.axhspan(low, 1.0, color=CONTRACTION, zorder=0)
    axes.axhline(1.0, color="#3B7A57", linewidth=1.2, linestyle="--")
    axes.set_ylim(low, max(high, 3.0))
    axes.text(
        0.015, 0.02, "below 1: tokens come closer to their mean", transform=axes.transAxes, color="#2E6B4A", fontsize=10
    )


def _gap(axes: Axes, diagnosis: Diagnosis, name: str, place: float, height: float) -> None:
    """Marks with an arrow how many times a bound is above the actual rate, in the layer at `place` of the depth."""
    actual, bound = (positive(diagnosis.rates[key].mean) for key in ("actual", name))
    block = round(place * (actual.size - 1))
    bottom, top = actual[block], bound[block]
    # One layer has no room for two arrows, and a bound within a factor of two needs none.
    if actual.size == 1 or not top / bottom >= 2:
        return
    arrow = {"arrowstyle": "<->", "color": "#555555", "shrinkA": 5, "shrinkB": 5}
    axes.annotate("", (block + 1, top), (block + 1, bottom), arrowprops=arrow)
    axes.annotate(
        f"{digits(top / bottom)} × actual",
        (block + 1, bottom * (top / bottom) ** height),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=12,
        fontweight="bold",
        color=COLOURS[name],
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def rate_labels(diagnosis: Diagnosis) -> dict[str, str]:
    """What the rates are called; L1 of a model that departs from the theorem's blocks is not the theorem's."""
    return PRE_NORM_LABELS if diagnosis.model.departures else RATE_LABELS


def _rate_label(diagnosis: Diagnosis, name: str) -> str:
    values = finite(diagnosis.rates[name].mean)
    return rate_labels(diagnosis)[name] + (f"  ({digits(float(np.median(values)))})" if values.size else "")
