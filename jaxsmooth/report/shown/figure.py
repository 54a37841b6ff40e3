"""One figure: shown by a notebook, saved as PNG, SVG or PDF, changed as an Altair chart."""

import base64
import copy
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ...errors import OptionError
from ...files import atomic_write
from . import style as look

FORMATS = (".png", ".svg", ".pdf")
SHAPE = 0.72
"""Height over width of a panel in the style "paper"."""

_LETTER = 6.4  # width of a letter of an axis title, about, in units
_NARROWEST = 200  # units of width of all panels side by side; what is too wide with these is a legend


@dataclasses.dataclass(frozen=True, repr=False)
class Figure:
    """A figure of a result, as `result.plot(kind)` makes it.

    Attributes:
      kind: which.
      style: "house" or "paper".
      specification: its whole Vega-Lite description.
    """

    kind: str
    style: str
    specification: dict[str, Any]

    @property
    def chart(self) -> Any:
        """The same as an Altair chart, for changes of your own: `figure.chart.properties(title="...")`."""
        return alt.Chart.from_dict(self.specification)

    @functools.cached_property
    def _drawn(self) -> str:
        """The SVG in units."""
        return vl_convert.vegalite_to_svg(self.specification)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in points, of 1/72 inch, as SVG and PDF have it."""
        width, height = _units(self._drawn)
        return width * self._shrink, height * self._shrink

    @property
    def _shrink(self) -> float:
        return 1.0 if self.style == "house" else look.SHRINK

    def svg(self) -> str:
        """The figure as SVG."""
        return self._drawn if self.style == "house" else self._sized("pt")

    def _sized(self, unit: str) -> str:
        width, height = self.size
        sized = f'width="{width:.2f}{unit}" height="{height:.2f}{unit}"'
        return re.sub(r'width="[\d.]+" height="[\d.]+"', sized, self._drawn, count=1)

    def png(self) -> bytes:
        """The figure as PNG: two pixels a unit, or, in the style "paper", 300 an inch."""
        return vl_convert.svg_to_png(
            self._drawn, scale=look.SCALE if self.style == "house" else self._shrink * look.PAPER_PPI / 72
        )

    def pdf(self) -> bytes:
        """The figure as PDF, letters as letters."""
        return vl_convert.svg_to_pdf(self._sized(""))  # a unit of a drawing is a point of a page

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as what the path ends in: .png, .svg or .pdf.

        Args:
          path: the file, made with its folder, whole or not at all.

        Returns:
          The path.

        Raises:
          OptionError: another ending.
          OSError: the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in FORMATS:
            raise OptionError(f"a figure is saved as {', '.join(FORMATS)}; got {str(path)!r}.")
        content = self.svg() if suffix == ".svg" else self.png() if suffix == ".png" else self.pdf()
        return atomic_write(Path(path), content)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A picture: it needs no script, no network and no font of the reader's, and stays in a saved notebook."""
        (width, height), zoom = self.size, 1.0 if self.style == "house" else 96 / 72
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": repr(self)}
        return data, {"image/png": {"width": round(width * zoom), "height": round(height * zoom)}}

    def __repr__(self) -> str:
        width, height = self.size
        return f"Figure {self.kind!r} in the style {self.style!r}, {width:.0f} x {height:.0f} points"


def figure(kind: str, chart: alt.TopLevelMixin, style: str) -> Figure:
    """A figure of a chart.

    Args:
      kind: its name.
      chart: of the house: sizes set, not configured.
      style: "house" or "paper".
    """
    # Not validated, which takes longer than to draw: the charts of the library are tested.
    described = look.with_letters(chart.configure(**look.vega(style)).to_dict(validate=False))
    return Figure(kind, style, described if style == "house" else fitted(described))


def fitted(described: dict[str, Any], inches: float = look.COLUMN) -> dict[str, Any]:
    """The description for one column: panels below each other, no title, as wide as the column whatever is beside them.

    Args:
      described: a description of the house.
      inches: width of the column.
    """
    whole = _stacked(copy.deepcopy(described))
    whole.pop("title", None)
    _not_bold(whole)
    target, panels = inches * 72 / look.SHRINK, [(panel, _shape(panel)) for panel in _panels(whole)]
    across = 2 if "facet" in whole else 1
    if across == 2:
        _small_maps(whole)

    def over(width: float) -> float:
        """By how much the whole is too wide with panels of this width."""
        for panel, shape in panels:
            _resize(panel, width, shape)
        return _units(vl_convert.vegalite_to_svg(whole))[0] - target

    # Where narrow panels are too wide still, it is a legend that is.
    width: float = _NARROWEST / across
    while (excess := over(width)) > 0 and _fewer_columns(whole):
        pass
    for _ in range(5):
        if -2 <= excess <= 0:
            break
        width = max(width - (excess + 1) / across, 40)
        excess = over(width)
    return whole


def _small_maps(whole: dict[str, Any]) -> None:
    """Two small heat maps beside each other: no names of rows and columns, which would overlap; the legend below."""
    whole["columns"] = 2
    whole.setdefault("facet", {}).setdefault("header", {})["labelFontSize"] = 12
    for name, channel in whole["spec"].get("encoding", {}).items():
        if name in ("x", "y"):
            channel["axis"] = {**(channel.get("axis") or {}), "labels": False, "ticks": False}
        elif isinstance(channel, dict) and isinstance(channel.get("legend"), dict):
            channel["legend"] |= {"orient": "bottom", "direction": "horizontal"}


def _units(svg: str) -> tuple[float, float]:
    found = re.search(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', svg)
    assert found is not None, svg[:200]
    return float(found[1]), float(found[2])


def _stacked(view: dict[str, Any]) -> dict[str, Any]:
    """Panels below each other; no numbers in the cells of heat maps, which would be smaller than the least letter."""
    for key in ("hconcat", "vconcat", "layer"):
        if key in view:
            parts = [_stacked(part) for part in view.pop(key) if not _shrinks(part)]
            view["layer" if key == "layer" else "vconcat"] = parts
    return view


def _shrinks(part: dict[str, Any]) -> bool:
    mark = part.get("mark")
    return isinstance(mark, dict) and mark.get("type") == "text" and isinstance(mark.get("fontSize"), dict)


def _panels(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The views that have a size of their own."""
    if isinstance(view.get("width"), int | float):
        yield view
    for part in (*view.get("vconcat", ()), *([view["spec"]] if "spec" in view else ())):
        yield from _panels(part)


def _not_bold(view: Any) -> None:
    for part in view.values() if isinstance(view, dict) else view if isinstance(view, list) else ():
        _not_bold(part)
    if isinstance(view, dict):
        for key in ("fontWeight", "labelFontWeight", "titleFontWeight"):
            if view.get(key) == "bold":
                view[key] = "normal"


def _shape(panel: dict[str, Any]) -> float:
    """Height over width in the column: what is wide becomes higher; squares stay squares, flat heat maps flat."""
    before = float(panel["height"] / panel["width"])
    return max(SHAPE, before) if before > 0.5 else before


def _resize(panel: dict[str, Any], width: float, shape: float) -> None:
    panel["width"], panel["height"] = width, round(shape * width)
    for axis in _axes(panel):
        axis["title"] = _lines(axis["title"], panel["height"])


def _axes(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The vertical axes' settings that have a title."""
    y = view.get("encoding", {}).get("y", {})
    for holder in (y, y.get("axis") or {}):
        if isinstance(holder, dict) and isinstance(holder.get("title"), str | list):
            yield holder
    for part in view.get("layer", ()):
        yield from _axes(part)


def _lines(title: str | list[str], height: float) -> str | list[str]:
    """A title on two lines where one is longer than the axis."""
    words = " ".join(title) if isinstance(title, list) else title
    if len(words) * _LETTER <= height or " " not in words:
        return words
    # In the middle, rather after a "/" or before a "(".
    spaces = [k for k, letter in enumerate(words) if letter == " "]
    cut = min(spaces, key=lambda k: abs(k - len(words) / 2) - 6 * (words[k - 1] == "/" or words[k + 1] == "("))
    return [words[:cut], words[cut + 1 :]]


def _fewer_columns(view: Any) -> bool:
    """One column less in every legend that has several; False where none has."""
    if isinstance(view, list):
        return sum(map(_fewer_columns, view)) > 0  # all of them, not up to the first
    if not isinstance(view, dict):
        return False
    legend, fewer = view.get("legend"), False
    if isinstance(legend, dict) and isinstance(legend.get("columns"), int) and legend["columns"] > 1:
        legend["columns"], fewer = legend["columns"] - 1, True
    return sum(_fewer_columns(part) for key, part in view.items() if key not in ("data", "datasets")) > 0 or fewer
