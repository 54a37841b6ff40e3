"""One look for every picture of the project, and a second for papers: colours, letters, sizes, as data.

`vega` is the look for Altair's charts, `matplotlib` for the experiments' figures; neither library is loaded here.
"""

from typing import Any

from ...errors import OptionError

COLOURS = {
    "cosine": "#0072B2",
    "distance": "#D55E00",
    "std_attn": "#0072B2",
    "std_mlp": "#009E73",
    "std_product": "#D55E00",
    "attention": "#0072B2",
    "threshold": "#000000",
    "actual": "#000000",
    "L5": "#8C564B",
    "L4": "#009E73",
    "L3": "#56B4E9",
    "L2b": "#0072B2",
    "L2": "#CC79A7",
    "L1": "#D55E00",
    "L0": "#E69F00",
}
"""Okabe and Ito's palette, which people with any colour vision can tell apart; L5's brown is none of its eight."""

FURTHER = ("#332288", "#117733", "#882255", "#999933", "#88CCEE", "#AA4499", "#44AA99")
"""Paul Tol's muted palette, for lines that are none of these."""

GREY = "#555555"
GRID = "#E3E3E3"

STYLES = ("house", "paper")

COLUMN = 3.25
"""Inches: the column of a two-column paper, as ICML's; ACL's is 3.03, NeurIPS and ICLR have one of 5.5."""

LEAST_LETTER = 7.0
"""Points: no letter of the style "paper" is smaller."""

SHRINK = 0.6
"""A figure in the style "paper" is laid out with the house's letters, of 12 units and more, and made smaller by this: a
unit is then 0.6 points, so 12 of them are 7.2."""

SCALE = 2
"""Pixels of a PNG for each unit of length of its chart, in the style "house"."""

PAPER_PPI = 300
"""Pixels of a PNG for each inch, in the style "paper"."""

_VEGA: dict[str, Any] = {
    # vl-convert carries Liberation Sans, so the files do not depend on the fonts of the machine.
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": GRID,
        "domain": False,
        "tickColor": GRID,
    },
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 400, "symbolSize": 80, "offset": 8},
    "title": {"anchor": "start", "fontSize": 15, "subtitleColor": GREY, "subtitleFontSize": 11, "offset": 12},
    "point": {"filled": True, "size": 60, "opacity": 1},
}
_MATPLOTLIB: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # which matplotlib carries
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', {[*dict.fromkeys(COLOURS.values())]})",
    "grid.color": GRID,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "figure.dpi": 150,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # letters as letters: some publishers refuse matplotlib's default
}
_PAPER: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "normal",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7.2,
    "ytick.labelsize": 7.2,
    "legend.fontsize": 7.2,
    "figure.labelsize": 7.2,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "savefig.dpi": PAPER_PPI,
    "figure.dpi": PAPER_PPI,
}


def checked(style: str) -> str:
    """The name of a style.

    Raises:
      OptionError: lists those there are.
    """
    if style not in STYLES:
        raise OptionError(f"there is no style {style!r}; there are {' and '.join(STYLES)}.")
    return style


def vega(style: str = "house") -> dict[str, Any]:
    """The configuration of a Vega-Lite description, in units of the chart (see `SHRINK`).

    >>> vega("paper")["title"]["fontWeight"]
    'normal'
    """
    if checked(style) == "house":
        return _VEGA
    title = {**_VEGA["title"], "fontSize": 13, "fontWeight": "normal", "subtitleFontSize": 12, "offset": 6}
    header = {"labelFontWeight": "normal", "titleFontWeight": "normal", "labelFontSize": 12}
    legend = {**_VEGA["legend"], "titleFontWeight": "normal"}
    return {**_VEGA, "title": title, "header": header, "legend": legend, "text": {"fontSize": 12}}


def matplotlib(style: str = "house") -> dict[str, Any]:
    """The settings (`rcParams`) of a figure of matplotlib.

    >>> matplotlib()["font.size"], matplotlib("paper")["font.size"]
    (11, 8)
    """
    return _MATPLOTLIB if checked(style) == "house" else {**_MATPLOTLIB, **_PAPER}


def with_letters(value: Any) -> Any:
    """A description in letters of the font that vl-convert carries: for another one, as ‖, it takes a font of the
    machine for the whole line.

    >>> with_letters({"title": ["d_M/‖H‖"]})
    {'title': ['d_M/||H||']}
    """
    if isinstance(value, dict):
        return {key: with_letters(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_letters(one) for one in value]
    return value.replace("‖", "||") if isinstance(value, str) else value
