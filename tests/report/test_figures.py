"""The charts: every file is drawn, shows the numbers of the diagnosis, and draws text from outside as text."""

from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.report import HOSTILE, blank, chart_data, exemplar, rates, spread, synthetic

from jaxsmooth.report import headline, write_figures
from jaxsmooth.report.charts import LINE, SCALE, heading, log_axis, specification
from jaxsmooth.report.figures import attribution_figure, ladder_chart, ladder_figure, overview_figure, similarity_chart
from jaxsmooth.report.format import digits
from jaxsmooth.report.heatmaps import attention_graph, cosine_maps, cosine_of_layer, mixing_rates, sink_strengths
from jaxsmooth.results.summaries import RATES

NAMES = {"overview", "similarity", "norms", "ladder", "mixing_rate", "exemplar_cosine", "baselines", "attribution"}


def data_of(chart, *keys):
    return chart_data(specification(chart), *keys)


@pytest.mark.parametrize(
    "diagnosis",
    [
        synthetic(),
        pytest.param(synthetic(1, 1), marks=pytest.mark.long),
        synthetic(name=HOSTILE[3] + HOSTILE[4], exemplar=exemplar(6, 12, HOSTILE)),
        synthetic(rates={**rates(6), "actual": spread(np.zeros(6)), "L0": spread(np.full(6, np.inf), 0.0)}),
    ],
    ids=["usual", "one layer", "hostile text", "zero and infinite rates"],
)
def test_every_figure_is_drawn(diagnosis, tmp_path):
    figures = write_figures(diagnosis, tmp_path)
    assert set(figures) == NAMES
    for path in figures.values():
        image = matplotlib.image.imread(path)
        assert min(image.shape[:2]) >= 170 * SCALE
        assert image[..., :3].std() > 0.05, f"{path.name} is blank"
        colours = np.rint(image[..., :3] * 255).astype(np.int64) @ (1, 256, 65_536)
        assert len(np.unique(colours)) > 50
        drawing = ElementTree.parse(path.with_suffix(".svg")).getroot()
        assert f"{diagnosis.data.sentences} sentences of {diagnosis.data.name}" in "".join(drawing.itertext())
        tags = {element.tag.split("}")[1] for element in drawing.iter()}
        assert not tags & {"script", "foreignObject", "image", "a", "use", "style"}
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_undefined_values_are_said_not_drawn(tmp_path):
    figures = write_figures(blank(), tmp_path)
    assert set(figures) == NAMES - {"exemplar_cosine"}
    for name, path in figures.items():
        assert path.stat().st_size > 5_000
        words = "".join(ElementTree.parse(path.with_suffix(".svg")).getroot().itertext())
        assert words.count("no sentence gives a value") == (2 if name in ("overview", "norms") else 1)


def test_text_needs_no_font_of_the_machine(tmp_path):
    """The letters of every PNG come from the font that vl-convert carries, which the drawing names first."""
    path = write_figures(synthetic(1, 1), tmp_path)["similarity"]
    texts = [each for each in ElementTree.parse(path.with_suffix(".svg")).getroot().iter() if each.tag.endswith("text")]
    assert texts
    assert all(each.get("font-family", "").startswith("Liberation Sans") for each in texts)
    words = [each.text or "" for each in texts]
    assert any("||H||" in each for each in words)
    assert not any("‖" in each for each in words)  # which that font lacks


def test_a_long_note_takes_several_lines():
    """In one it would make the picture as wide as itself."""
    about, *notes = heading("Title", synthetic(), "word " * 100, "short").subtitle
    assert "256 sentences" in about
    assert max(map(len, notes)) <= LINE
    assert " ".join(notes).split() == ["word"] * 100 + ["short"]


def test_the_ladder_shows_the_rates():
    diagnosis = synthetic()
    rows = data_of(ladder_chart(diagnosis, RATES), "series", "value")
    assert len(rows) == len(RATES) * 6
    for name in RATES:
        shown = [row["value"] for row in rows if row["series"].split()[0] == name.split()[0]]
        assert shown == diagnosis.rates[name].mean.tolist()


def test_text_figure_and_legend_give_one_number_for_a_bound():
    """Of L1 over the actual rate: the median over layers, in the headline, in the arrow, in the legend."""
    diagnosis = synthetic()
    number = digits(headline(diagnosis).findings.L1_over_actual)
    arrows = {row["text"] for row in data_of(overview_figure(diagnosis), "text") if "actual" in row["text"]}
    assert f"{number} × actual" in arrows
    series = {row["series"] for row in data_of(ladder_chart(diagnosis, RATES), "series", "value")}
    assert f"L1  theorem, per layer  (× {number})" in series
    assert f"{number} times the actual rate" in headline(diagnosis).explanation


def test_the_attribution_and_its_sum_are_drawn():
    diagnosis = synthetic()
    rows = data_of(attribution_figure(diagnosis), "part", "value")
    assert [row["value"] for row in rows] == diagnosis.attribution.mean.ravel().tolist()
    sums = [row["sum"] for row in data_of(attribution_figure(diagnosis), "sum")]
    assert sums == pytest.approx(diagnosis.attribution.mean.sum(axis=1))


def test_page_and_files_show_the_same_data():
    diagnosis = synthetic()
    chart, figure = (specification(make) for make in (ladder_chart(diagnosis, RATES), ladder_figure(diagnosis)))
    assert chart["layer"] == figure["layer"]


def test_bands_are_deviations_and_ranges():
    diagnosis = synthetic()
    row = next(row for row in data_of(similarity_chart(diagnosis), "plus") if row["layer"] == 3)
    cosine = diagnosis.cosine_similarity
    expected = (cosine.mean[3] - cosine.std[3], cosine.mean[3] + cosine.std[3], cosine.min[3], cosine.max[3])
    assert (row["minus"], row["plus"], row["low"], row["high"]) == pytest.approx(expected, rel=1e-14)


def test_every_head_has_its_cell():
    diagnosis = synthetic()
    rows = data_of(mixing_rates(diagnosis), "rate")
    assert len(rows) == 6 * 12
    assert all(row["rate"] == diagnosis.mixing_rate.mean[row["layer"] - 1, row["head"] - 1] for row in rows)
    sinks = data_of(sink_strengths(diagnosis), "strength")
    assert len(sinks) == 6 * 12
    assert all(row["strength"] == diagnosis.sink_strength.mean[row["layer"] - 1, row["head"] - 1] for row in sinks)


@pytest.mark.parametrize("make", [cosine_maps, cosine_of_layer], ids=["file", "page"])
def test_maps_of_tokens_show_every_cosine(make):
    sentence = exemplar(2, 3)
    rows = data_of(make(sentence), "layer", "j")
    shown = np.full(sentence.cosine.shape, np.nan)
    for row in rows:
        shown[row["layer"], row["i"], row["j"]] = row["value"]
    np.testing.assert_allclose(shown, sentence.cosine, rtol=5.1e-5)


def test_the_graph_has_the_edges_of_at_least_an_even_share():
    sentence = exemplar(2, 3)
    shown = np.zeros((2, 4, *sentence.attn.shape[2:]))
    for row in data_of(attention_graph(sentence, 3), "head", "j"):
        shown[row["layer"] - 1, row["head"], row["i"], row["j"]] = row["value"]
    heads = np.concatenate([sentence.attn.mean(axis=1, keepdims=True), sentence.attn], axis=1)
    expected = np.where(heads >= 0.99 / len(sentence.tokens), heads, 0)
    np.testing.assert_allclose(shown, expected, rtol=5.1e-5)


@pytest.mark.parametrize(
    ("numbers", "ticks"),
    [
        ([0.4, 2.6], [0.5, 1, 2]),
        ([1, 120_000], [1, 10, 100, 1_000, 10_000, 100_000]),
        ([0, np.inf, np.nan], [0.1, 1, 10]),
    ],
    ids=["a decade", "many decades", "nothing to show"],
)
def test_a_log_axis_has_numbers_and_holds_the_data(numbers, ticks):
    axis, foot = log_axis("", [numbers])
    low, high = axis.to_dict()["scale"]["domain"]
    assert foot == low
    assert axis.to_dict()["axis"]["values"][: len(ticks)] == pytest.approx(ticks)
    known = [number for number in numbers if 0 < number < np.inf]
    assert all(low < number < high for number in known)


@given(st.floats(-6, 6), st.floats(0, 20))
def test_a_log_axis_has_at_least_three_numbers_wherever_it_begins_and_ends(low, decades):
    ticks = log_axis("", [[10**low, 10 ** (low + decades)]])[0].to_dict()["axis"]["values"]
    assert 3 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))


def test_a_log_axis_of_a_hundred_decades_has_few_ticks():
    axis, _ = log_axis("", [[1e-40, 1e60]])
    assert 5 <= len(axis.to_dict()["axis"]["values"]) <= 11
