"""The page as text: nothing is loaded from elsewhere, and text from outside stays text."""

import dataclasses
import json
import re

import pytest
from support.report import HOSTILE, chart_data, exemplar, synthetic

from jaxsmooth.report import render_page
from jaxsmooth.report.figures import (
    baselines_figure,
    ladder_figure,
    mixing_rate_figure,
    norms_figure,
    overview_figure,
    similarity_figure,
)
from jaxsmooth.report.sections import plots, shell
from jaxsmooth.report.shown.style import vega

CHARTS = [
    *("similarity", "ladder", "threshold", "norms", "principal", "alike", "baseline", "attribution", "mixing", "sinks"),
]


def own_markup(page):
    """The page without its scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)


def charts_of(page):
    return re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)[1]


def test_no_reference_leaves_the_page():
    page = render_page(synthetic())
    assert len(page.encode()) < 2_000_000
    markup = own_markup(page)
    loads = re.findall(r"""(?:src|srcset|href|action|data|poster)\s*=\s*["']?([^"'\s>]+)""", markup)
    assert sorted({one for one in loads if one[0] != "#"}) == ["data:,", "https://arxiv.org/abs/2202.08625"]
    assert "<script src" not in page
    assert not re.search(r"@import|url\(", re.search(r"<style>(.*?)</style>", page, re.S)[1])
    assert '"url"' not in charts_of(page)


def test_the_script_that_draws_is_kept_and_a_damaged_one_made_anew(tmp_path):
    first = render_page(synthetic(), kept=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole.replace(b"vegaEmbed", b"vegaembed"))
    assert render_page(synthetic(), kept=tmp_path) == first == render_page(synthetic())
    assert kept.read_bytes() == whole
    (tmp_path / "file").touch()
    assert render_page(synthetic(), kept=tmp_path / "file" / "inside") == first


def test_what_is_kept_is_not_made_again(tmp_path, monkeypatch):
    first = render_page(synthetic(), kept=tmp_path)
    shell._bundled.cache_clear()
    monkeypatch.setattr(shell.vl_convert, "javascript_bundle", lambda: pytest.fail("made again"))
    assert render_page(synthetic(), kept=tmp_path) == first


@pytest.mark.parametrize("of", [synthetic(), dataclasses.replace(synthetic(), exemplar=exemplar(6, 12))])
def test_charts_are_as_vega_lite_has_them(of):
    for make in (overview_figure, similarity_figure, norms_figure, ladder_figure, mixing_rate_figure, baselines_figure):
        make(of).to_dict(validate=True)
    charts = {**plots._of_layers(of), **plots._of_heads(of)}
    charts |= {} if of.exemplar is None else plots._of_tokens(of.exemplar, 12)
    for chart in charts.values():
        chart.configure(**vega()).to_dict(validate=True)


def test_files_beside_the_page_are_linked():
    markup = own_markup(render_page(synthetic(), beside=["report.json", 'a"b/']))
    assert re.findall(r'<a href="([^"]+)"', markup)[:2] == ["report.json", "a&#34;b/"]
    assert "beside this page" not in own_markup(render_page(synthetic()))


@pytest.mark.parametrize(("layers", "heads", "shown"), [(12, 12, 12), (24, 16, 0)])
def test_the_page_stays_below_two_million_bytes(layers, heads, shown):
    """24 tokens, the most that a diagnosis shows; heads are left out where they would not fit."""
    sentence = exemplar(layers, heads, tuple(f"token{k}" for k in range(24)))
    page = render_page(synthetic(layers, heads, exemplar=sentence))
    assert len(page.encode()) < 2_000_000
    assert page.count("</option>") == 1 + shown + 1 + 24
    assert ("would make this page too large" in page) is (shown == 0)


def test_every_chart_has_its_place_and_its_description():
    page = render_page(synthetic())
    charts = list(json.loads(charts_of(page)))
    assert charts == [*CHARTS, "cosine", "graph"]
    for name in charts:
        assert re.search(rf'<div id="{name}" class="plot[^"]*" role="img" aria-label="[^"]{{40,}}">', page)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text):
    data = dataclasses.replace(synthetic().data, name=text)
    sentence = dataclasses.replace(exemplar(6, 12, ("[CLS]", text, "[SEP]")), text=text)
    page = render_page(synthetic(name=text, data=data, exemplar=sentence, versions={text: text}))
    assert "<img" not in own_markup(page)
    # Scripts: the charts, Vega, ours. A fourth one would be the text's.
    assert len(re.findall(r"</script>", page)) == 3
    charts = charts_of(page)
    assert "<" not in charts
    tokens = [row["whole"] for row in chart_data(json.loads(charts)["graph"], "whole")]
    assert tokens == ["[CLS]", text, "[SEP]"] * 2


def test_without_an_exemplar_the_page_says_so():
    page = render_page(synthetic(exemplar=None))
    assert "No sentence of this text is short enough" in page
    assert list(json.loads(charts_of(page))) == CHARTS


def test_a_sentence_too_long_for_the_page_is_left_out():
    page = render_page(synthetic(exemplar=exemplar(6, 12, tuple("abcde" * 40))))
    assert "too long to be shown" in page
    assert len(page.encode()) < 2_000_000
