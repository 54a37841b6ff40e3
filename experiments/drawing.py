"""What the figures of the experiments share: the project's look, safe text, axes, saving.

Colours, letters and sizes are those of `jaxsmooth.report.shown.style`, which the library's own figures have too.
"""

import io
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from jaxsmooth.files import atomic_write
from jaxsmooth.report.shown import style as look
from jaxsmooth.report.shown.style import COLOURS as COLOURS


@contextmanager
def canvas(width: float, height: float, style: str = "house") -> Iterator[Figure]:
    """Open an empty figure in the project's style, whatever the reader's matplotlib settings are.

    Args:
      width: inches; for the column of a two-column paper `look.COLUMN`.
      height: inches.
      style: "house", or "paper": small letters, thin lines, no bold title.
    """
    # `rc_context` restores the caller's settings; pyplot and its list of open figures are never touched.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(look.matplotlib(style))
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as what the path ends in, PNG, SVG or PDF, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:])
    return atomic_write(path, buffer.getvalue())


@cache
def _drawable_codes() -> frozenset[int]:
    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())


def drawable(text: str, limit: int = 60) -> str:
    """Make text from outside safe to draw: what the font lacks becomes a box, what is too long is cut.

    >>> drawable("café\\n漢")
    'café□□'
    """
    safe = "".join(
        c if ord(c) in _drawable_codes() and not unicodedata.category(c).startswith("C") else "□" for c in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def title(axes: Axes, text: str) -> None:
    """Set a title in which `$` is a dollar sign: model names and tokens are not formulas."""
    axes.set_title(drawable(text, 120), parse_math=False)


def layer_axis(axes: Axes, first: int, last: int) -> None:
    """Label the horizontal axis with whole layers."""
    axes.set_xlabel("layer (0 = embedding output)" if first == 0 else "layer")
    axes.set_xlim(first - 0.35, last + 0.35)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=min(13, last - first + 1), integer=True, min_n_ticks=1))


def log_axis(axes: Axes, values: list[np.ndarray]) -> None:
    """Make the vertical axis logarithmic with plain numbers, unless no value has a place on it."""
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
    """Blank what a log axis has no place for: 0 (an exact collapse) and infinity (an overflowed bound)."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e7 else f"{value:g}"


def remark(figure: Figure, text: str) -> None:
    """Small letters below the figure."""
    figure.supxlabel(text, fontsize=9, color=look.GREY).set_parse_math(False)


def say_empty(axes: Axes) -> None:
    """Say in the middle of a plot that there is nothing to draw."""
    axes.text(
        0.5, 0.5, "no sentence gives a value", transform=axes.transAxes, ha="center", va="center", color=look.GREY
    )
