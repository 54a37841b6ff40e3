"""The PNG heat maps: mixing rate by layer and head, cosine similarity by token and token."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm

from ..results.diagnosis import Diagnosis, Exemplar
from .format import digits, finite
from .style import canvas, drawable, note, save, say_empty, title

LABELLED_TOKENS = 40
"""Longer sentences get no token labels: they would overlap."""

LABELLED_HEADS = 24
"""Wider tables get colours only."""


def mixing_rate_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """Mixing rate of every head, a layer x head heat map with its values."""
    rate = diagnosis.mixing_rate.mean
    layers, heads = rate.shape
    with canvas(max(6.5, 0.62 * heads + 2.2), max(3.4, 0.42 * layers + 1.9)) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        # White sits at 1, where attention neither shrinks nor stretches the distance from the mean.
        top = max(finite(rate).tolist(), default=1.0)
        norm = TwoSlopeNorm(1.0, 0.0, max(2.0, top)) if top > 1 else TwoSlopeNorm(1.0, 0.0, 2.0)
        image = axes.imshow(rate, cmap="PuOr_r", norm=norm, aspect="auto")
        _write_values(axes, rate, norm)
        axes.set_xticks(range(heads), [str(head) for head in range(1, heads + 1)])
        axes.set_yticks(range(layers), [str(layer) for layer in range(1, layers + 1)])
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        title(axes, "Mixing rate √λ of every head (below 1: it only brings tokens together)")
        bar = figure.colorbar(image, ax=axes, label="mixing rate √λ, mean over sentences")
        bar.ax.axhline(1.0, color="black", linewidth=1)
        note(figure, diagnosis)
        if not finite(rate).size:
            say_empty(axes)
        return save(figure, path)


def _write_values(axes: Axes, values: np.ndarray, norm: TwoSlopeNorm) -> None:
    if values.shape[1] > LABELLED_HEADS:
        return
    for (layer, head), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(float(norm(value)) - 0.5) > 0.32
            axes.text(
                head, layer, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else "black"
            )


def exemplar_cosine_figure(diagnosis: Diagnosis, path: Path) -> Path:
    """Cosine similarity of every pair of tokens of one sentence, one small heat map per layer.

    Args:
      diagnosis: a diagnosis with an exemplar.
      path: the PNG file to write.
    """
    exemplar = diagnosis.exemplar
    assert exemplar is not None
    states = exemplar.cosine.shape[0]
    columns = min(states, 4 if states <= 8 else 5)
    rows = math.ceil(states / columns)
    side = 3.0
    with canvas(side * columns + 2.0, side * rows + 1.6) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        norm = Normalize(min(0.0, float(np.nanmin(exemplar.cosine, initial=0.0))), 1.0)
        for state, axes in enumerate(grid.flat):
            axes.set_visible(state < states)
            if state < states:
                image = axes.imshow(exemplar.cosine[state], cmap="cividis", norm=norm)
                _label_tokens(axes, exemplar, left=state % columns == 0, bottom=state + columns >= states)
                title(axes, _state_title(exemplar, state))
        figure.colorbar(image, ax=grid, label="cosine similarity of two tokens", shrink=0.8)
        # Square maps are taller than the layout allows for: room for heading and note is kept by hand.
        figure.set_layout_engine("constrained", rect=(0, 0.02, 1, 0.94))
        heading = figure.suptitle(f"“{drawable(exemplar.text, 90)}”", fontsize=13, y=0.99)
        heading.set_parse_math(False)
        note(figure, diagnosis)
        return save(figure, path)


def _state_title(exemplar: Exemplar, state: int) -> str:
    name = "embedding" if state == 0 else f"layer {state}"
    matrix = exemplar.cosine[state].astype(np.float64)
    pairs = matrix[~np.eye(matrix.shape[0], dtype=bool)]
    return f"{name}: mean {digits(float(pairs.mean()))}" if pairs.size else name


def _label_tokens(axes: Axes, exemplar: Exemplar, *, left: bool, bottom: bool) -> None:
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    size = len(exemplar.tokens)
    if size > LABELLED_TOKENS:
        return
    labels = [drawable(token, 12) for token in exemplar.tokens]
    font = 9 if size <= 16 else 7 if size <= 28 else 5
    if left:
        axes.set_yticks(range(size), labels, fontsize=font, parse_math=False)
    if bottom:
        axes.set_xticks(range(size), labels, fontsize=font, rotation=90, parse_math=False)
