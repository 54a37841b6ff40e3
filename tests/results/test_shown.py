"""How results show themselves: at a prompt, in a notebook, as figures in two styles and three formats."""

import base64
import dataclasses
import re
import types
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from support.report import HOSTILE, blank, comparison, convergence, spread, synthetic, verification

from jaxsmooth.errors import OptionError
from jaxsmooth.report.shown import html
from jaxsmooth.report.shown import style as look
from jaxsmooth.report.shown.figure import FORMATS
from jaxsmooth.results.each_text import TextValues
from jaxsmooth.results.fate import SENTENCE_NUMBERS, MapConvergence, MapFates, StdSweep
from jaxsmooth.results.summaries import DataSummary

DIAGNOSIS = synthetic(4, 3)
MODEL, DATA = DIAGNOSIS.model, DIAGNOSIS.data
NUMBERS = {name: np.array([1.0, 2.0]) for name in SENTENCE_NUMBERS}
FATES = MapFates(1, ("consensus", "cycle"), (((0, 1),), ((0,), (1,))), NUMBERS, np.array([[1, 0.1], [1, 0.9]]))
SWEEP = StdSweep(1, np.array([1.0, 2.0]), (("cycle", "cycle"), ("consensus", "cycle")), np.ones((2, 2)), 3.0, 4.0)
EACH = TextValues("", 9, np.arange(9), {"": {"actual": np.random.default_rng(0).uniform(0.5, 1.5, (4, 9))}})
RESULTS = {
    "diagnose": dataclasses.replace(DIAGNOSIS, each=EACH),
    "compare": comparison(MODEL, DATA),
    "converge": convergence(MODEL, DATA),
    "fate": MapConvergence(MODEL, DATA, "layer", 9, 1e-5, None, (("a", "b"), ("c", "d")), (FATES,), (SWEEP,), {}),
    "verify": verification(MODEL, DATA),
}
EVIL = dataclasses.replace(MODEL, name=HOSTILE[0]), dataclasses.replace(DATA, name=HOSTILE[1])


@pytest.mark.parametrize("study", RESULTS)
def test_a_repr_is_two_lines_with_what_and_how_much(study):
    words = repr(RESULTS[study])
    first, second = words.splitlines()
    kind = type(RESULTS[study]).__name__
    assert first.startswith(f"{kind} of {MODEL.label} on 256 sentences of {DATA.name}: 7,300 tokens, float32")
    assert second
    assert len(words) < 420
    assert "array" not in words


def test_the_numbers_of_a_repr():
    assert repr(DIAGNOSIS).splitlines()[1] == (
        "cosine similarity 0.060 to 0.440; rates by layer: actual 0.800 to 1.15, L4 42.0 to 86.0, L1 4,800 to 11,200"
    )
    assert repr(blank()).splitlines()[1].startswith("cosine similarity n/a to n/a")


def test_parts_of_results_show_shapes_not_arrays():
    parts = (DIAGNOSIS.mixing_rate, DIAGNOSIS.exemplar, DIAGNOSIS.weights, FATES, EACH, RESULTS["compare"].entries[0])
    for part in parts:
        words = repr(part)
        assert words.startswith(type(part).__name__)
        assert len(words.splitlines()) == 1
        assert len(words) <= 200
        assert "array(" not in words
    assert repr(spread(np.ones((4, 3)))).startswith("Spread(mean=[4 3] 1.00, std=[4 3] 0.100, ")


def test_text_from_outside_stays_on_its_line():
    hostile = dataclasses.replace(DIAGNOSIS, data=DataSummary("a\nb\x1b[31m", 1, 2, 0))
    assert "1 sentence of a□b□[31m: 2 tokens" in repr(hostile).splitlines()[0]


class Page(HTMLParser):
    """Collects tags and words; every tag must be closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.mark.parametrize("study", RESULTS)
def test_a_notebook_shows_words_table_and_figure(study, monkeypatch):
    """Names that are HTML are shown as text, in every place. One figure is drawn, of the others only the place is."""
    if study != "fate":
        monkeypatch.setattr(html, "plot", lambda result: types.SimpleNamespace(png=lambda: b"png", size=(9.0, 9.0)))
    model, data = EVIL
    result = dataclasses.replace(RESULTS[study], model=model, data=data)
    text = result._repr_html_()
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert {"table", "img"} <= set(names)
    assert not {"script", "style", "iframe", "a"} & set(names)
    assert names.count("img") == 1
    image = dict(page.tags)["img"]
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert f"{type(result).__name__} of {model.label} on 256 sentences of {data.name}" in page.words
    # Colours come from the notebook, dark or light; the figure has its own ground.
    assert not re.search(r"[^-]color:(?!inherit)", text)
    assert "background:white" in image["style"]


def test_the_table_has_the_numbers(monkeypatch):
    monkeypatch.setattr(html, "plot", lambda result: types.SimpleNamespace(png=lambda: b"png", size=(9.0, 9.0)))
    words = Page(DIAGNOSIS._repr_html_()).words
    assert {"layer", "cosine", "actual", "0.440", "4,800"} <= set(words)


KINDS = {
    "diagnose": (
        *("overview", "similarity", "ladder", "norms", "threshold", "mixing_rate", "sink_strength"),
        *("attention_similarity", "principal_alignment", "exemplar_cosine", "texts"),
    ),
    "compare": ("overview", "cosine_similarity", "relative_distance", "rates"),
    "converge": ("overview",),
    "fate": ("fates", "curves", "basin", "std"),
    "verify": ("tightness", "verdicts"),
}
DRAWN_ELSEWHERE = {("diagnose", "overview"), ("compare", "overview"), ("converge", "overview")}
PAPER = {
    *(("diagnose", kind) for kind in ("norms", "ladder", "mixing_rate", "exemplar_cosine")),
    *(("compare", "cosine_similarity"), ("fate", "curves"), ("verify", "tightness")),
}


@pytest.mark.parametrize("study", RESULTS)
def test_what_can_be_drawn(study):
    assert RESULTS[study].kinds() == KINDS[study]


OFTEN = {("diagnose", "texts"), ("compare", "rates"), ("fate", "fates"), ("verify", "verdicts")}


@pytest.mark.parametrize(
    ("study", "kind"),
    [
        (study, kind) if (study, kind) in OFTEN else pytest.param(study, kind, marks=pytest.mark.long)
        for study, kinds in KINDS.items()
        for kind in kinds
        if (study, kind) not in DRAWN_ELSEWHERE | PAPER
    ],
)
def test_every_kind_is_drawn(study, kind):
    figure = RESULTS[study].plot(kind)
    assert (figure.kind, figure.style) == (kind, "house")
    assert "256 sentences of" in figure.svg()
    assert min(figure.size) > 100


def test_a_kind_or_style_that_is_none_lists_those_there_are(tmp_path):
    with pytest.raises(OptionError, match=r"no figure 'laddr' of a Diagnosis; there are overview, .*mean 'ladder'"):
        DIAGNOSIS.plot("laddr")
    with pytest.raises(OptionError, match="no style 'poster'; there are house and paper"):
        DIAGNOSIS.plot(style="poster")
    with pytest.raises(OptionError, match=r"saved as \.png, \.svg, \.pdf; got .*a\.jpg"):
        DIAGNOSIS.plot("similarity").save(tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def letters(svg: str) -> list[float]:
    """Sizes of all letters, in points, at the size the drawing has."""
    width, _, units = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"[^>]*viewBox="0 0 ([\d.]+)', svg).groups()
    return [float(size) * float(width) / float(units) for size in re.findall(r'font-size="([\d.]+)px"', svg)]


@pytest.mark.parametrize(("study", "kind"), sorted(PAPER))
def test_a_figure_for_a_column(study, kind):
    """As wide as the column, no letter below 7 points, nothing bold, no title."""
    figure = RESULTS[study].plot(kind, style="paper")
    svg = figure.svg()
    width, height = figure.size
    assert 72 * look.COLUMN - 2 <= width <= 72 * look.COLUMN
    assert height <= 72 * 9
    assert min(letters(svg)) >= look.LEAST_LETTER
    assert "sentences of" not in svg
    assert 'font-weight="bold"' not in svg


def test_three_formats_of_one_size(tmp_path):
    figure = DIAGNOSIS.plot("ladder", style="paper")
    paths = {suffix: figure.save(tmp_path / "new" / f"ladder{suffix}") for suffix in FORMATS}
    width, height = figure.size
    image = matplotlib.image.imread(paths[".png"])
    assert image.shape[1] == pytest.approx(width * 300 / 72, abs=2)
    assert image.shape[0] == pytest.approx(height * 300 / 72, abs=2)
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", paths[".pdf"].read_bytes()).groups()
    assert [float(side) for side in box] == pytest.approx([width, height], abs=1)
    assert paths[".svg"].read_text().startswith("<svg")


def test_a_figure_is_a_chart_and_shows_itself():
    figure = DIAGNOSIS.plot("similarity")
    assert figure.chart.to_dict()["layer"] == figure.specification["layer"]
    bundle, size = figure._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == figure.png()
    assert size["image/png"]["width"] == round(figure.size[0])
    assert bundle["text/plain"].startswith("Figure 'similarity' in the style 'house'")


def test_one_look_for_both_drawing_libraries():
    house, paper = look.matplotlib(), look.matplotlib("paper")
    assert set(house) <= set(paper)
    assert house["axes.titleweight"] == "bold"
    assert paper["axes.titleweight"] == "normal"
    sizes = [value for key, value in paper.items() if key.endswith("size") and key != "lines.markersize"]
    assert min(sizes) >= look.LEAST_LETTER
    assert house["grid.color"] == look.vega()["axis"]["gridColor"]
