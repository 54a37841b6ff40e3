"""What all figures share: colours that survive colour blindness, sizes, text that cannot break the drawing, saving."""

import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..files import write_aside
from ..results.comparison import Comparison
from ..results.convergence import HeadConvergence
from ..results.diagnosis import Diagnosis
from ..results.spread import Spread

COLOURS = {
    "cosine": "#0072B2",
    "distance": "#D55E00",
    "std_attn": "#0072B2",
    "std_mlp": "#009E73",
    "std_product": "#D55E00",
    "threshold": "#000000",
    "actual": "#000000",
    "L4": "#009E73",
    "L3": "#56B4E9",
    "L2b": "#0072B2",
    "L2": "#CC79A7",
    "L1": "#D55E00",
    "L0": "#E69F00",
}
"""Okabe and Ito's palette, which people with any colour vision can tell apart."""

CONTRACTION = "#DDF1E4"
DPI = 150

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    "figure.dpi": DPI,
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """Opens an empty figure in the report's style, whatever the reader's matplotlib settings are.

    Args:
      width: inches.
      height: inches.
    """
    # `rc_context` restores the caller's settings; pyplot and its list of open figures are never touched.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG, aside and renamed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_aside(path, buffer.getvalue())


@cache
def _drawable_codes() -> frozenset[int]:
    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


def drawable(text: str, limit: int = 60) -> str:
    """Makes text from outside safe to draw: what the font lacks becomes a box, what is too long is cut.

    >>> drawable("café\\n漢")
    'café□□'
    """
    safe = "".join(
        c if ord(c) in _drawable_codes() and not unicodedata.category(c).startswith("C") else "□" for c in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def title(axes: Axes, text: str) -> None:
    """Sets a title in which `$` is a dollar sign: model names and tokens are not formulas."""
    axes.set_title(drawable(text, 120), parse_math=False)


def layer_axis(axes: Axes, first: int, last: int) -> None:
    """Labels the horizontal axis with whole layers."""
    axes.set_xlabel("layer (0 = embedding output)" if first == 0 else "layer")
    axes.set_xlim(first - 0.35, last + 0.35)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=min(13, last - first + 1), integer=True, min_n_ticks=1))


def band(axes: Axes, spread: Spread, first: int, colour: str, label: str, *, marker: str = "o") -> None:
    """Draws mean, plus and minus one standard deviation (dark) and the range (light) over the layers from `first`."""
    layers = np.arange(first, first + spread.mean.size)
    axes.fill_between(layers, spread.min, spread.max, color=colour, alpha=0.10, linewidth=0)
    axes.fill_between(layers, spread.mean - spread.std, spread.mean + spread.std, color=colour, alpha=0.22, linewidth=0)
    axes.plot(layers, spread.mean, color=colour, marker=marker, label=label)


def log_axis(axes: Axes, values: list[np.ndarray]) -> None:
    """Makes the vertical axis logarithmic with plain numbers, unless no value can stand on such an axis."""
    if not any(np.isfinite(positive(value)).any() for value in values):
        say_empty(axes)
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    # Only an axis of about one decade needs numbers between the powers of ten.
    span = np.log10(np.array(axes.get_ylim()))
    narrow = span[1] - span[0] < 1.3
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: _plain(value)) if narrow else NullFormatter())
    if narrow:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))


def positive(values: np.ndarray) -> np.ndarray:
    """Blanks what a log axis has no place for: 0 (an exact collapse) and infinity (an overflowed bound)."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e7 else f"{value:g}"


def about(diagnosis: Diagnosis | HeadConvergence | Comparison) -> str:
    """Model and text in a few words, with what is odd about the weights: a picture travels without its report."""
    return drawable(f"{diagnosis.model.label} on {diagnosis.data.sentences:,} sentences of {diagnosis.data.name}", 110)


def note(figure: Figure, diagnosis: Diagnosis | HeadConvergence | Comparison, text: str = "") -> None:
    """Says in small letters below the figure what was measured, and explains lines and bands."""
    remark(figure, f"{about(diagnosis)}\n{text}".strip())


def remark(figure: Figure, text: str) -> None:
    """Small letters below the figure."""
    figure.supxlabel(text, fontsize=9, color="#555555").set_parse_math(False)


def legend_below(axes: Axes, columns: int) -> None:
    """Puts the legend under the axes, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, columnspacing=1.4)


def say_empty(axes: Axes) -> None:
    """Says in the middle of a plot that there is nothing to draw."""
    axes.text(
        0.5, 0.5, "no sentence gives a value", transform=axes.transAxes, ha="center", va="center", color="#555555"
    )
