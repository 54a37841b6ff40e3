"""The page in a real browser: it draws, it reacts, it asks for nothing, it fits the screen."""

import dataclasses
import shutil

import pytest
from support.report import blank, exemplar, synthetic

from jaxsmooth.report import render_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = (
    "[CLS]",
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    "<!--",
    "<b>a</b>",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to test the page in a browser")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a diagnosis as a page; at the end no request but the page's own and no complaint may have been seen."""
    opened, requests, complaints = [], [], []

    def open_page(diagnosis, width=1280):
        path = tmp_path / "report.html"
        path.write_text(render_page(diagnosis), encoding="utf-8", newline="\n")
        page = browser.new_page(viewport={"width": width, "height": 900})
        opened.append(page)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield open_page
    for page in opened:
        page.close()
    assert not complaints
    assert set(requests) == {(tmp_path / "report.html").as_uri()}
    assert len(requests) == len(opened)


def traces(page, plot):
    return page.evaluate(f"document.getElementById('{plot}').data.map(trace => trace.type || 'scatter')")


def set_layer(page, layer):
    page.locator("#layer").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", str(layer)
    )


def test_every_plot_is_drawn(show):
    page = show(synthetic())
    # Two quantities, each with two bands of two edges and a mean; one band and seven rates; one map each.
    assert [len(traces(page, plot)) for plot in ("similarity", "threshold", "norms", "ladder")] == [10, 10, 10, 9]
    assert traces(page, "mixing") == traces(page, "cosine") == ["heatmap"]
    assert page.locator("#ladder .scatterlayer .trace path.point").count() == 7 * 6
    assert page.locator("#similarity .scatterlayer .trace path.point").count() == 2 * 7
    assert page.locator("#mixing .heatmaplayer image").count() == 1
    assert page.evaluate("document.getElementById('mixing').data[0].z.map(row => row.length)") == [12] * 6
    assert page.locator("tbody tr").count() == 7
    for plot in ("similarity", "ladder", "threshold", "norms", "mixing", "cosine"):
        box = page.locator(f"#{plot} svg.main-svg").first.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 200


def test_the_slider_and_the_head_move_map_and_graph(show):
    diagnosis = synthetic()
    page = show(diagnosis)
    seen = {}
    for layer in (1, 4, 6):
        set_layer(page, layer)
        drawn = page.evaluate("document.getElementById('cosine').data[0].z")
        assert drawn[2][5] == pytest.approx(float(diagnosis.exemplar.cosine[layer][2, 5]), abs=2e-5)
        assert page.locator("#graph").get_attribute("data-layer") == str(layer)
        mean = diagnosis.exemplar.attn[layer - 1].mean(axis=0)
        assert page.locator("#graph path").count() == (mean >= 0.99 / mean.shape[0]).sum()
        seen[layer] = page.locator("#graph svg").inner_html()
    assert len(set(seen.values())) == 3
    page.select_option("#head", "3")
    head = diagnosis.exemplar.attn[5, 3]
    assert page.locator("#graph path").count() == (head >= 0.99 / head.shape[0]).sum()
    assert "head 4" in page.locator("#graph-caption").inner_text()
    set_layer(page, 0)
    assert page.locator("#graph path").count() == 0
    assert "no attention" in page.locator("#graph-caption").inner_text()


def test_pointing_at_a_token_singles_out_its_edges(show):
    page = show(synthetic())
    page.locator("#graph g.token").first.focus()
    faint = page.evaluate(
        "[...document.querySelectorAll('#graph path')].filter(p => p.getAttribute('opacity') === '0.03').length"
    )
    weights = synthetic().exemplar.attn[5].mean(axis=0)
    kept = weights >= 0.99 / weights.shape[0]
    assert faint == kept.sum() - kept[0].sum()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("layers", [1, 12])
def test_nothing_sticks_out_of_the_screen(show, width, layers):
    long = dataclasses.replace(exemplar(layers, 12, tuple("tokenisation" * 3 for _ in range(24))), text="x" * 3000)
    page = show(synthetic(layers, 12, exemplar=long, name="a-very-long-model-name-without-a-break" * 3), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_text_is_shown_as_text_and_runs_nothing(show):
    name = "<img src=x onerror=window.pwned=1>"
    sentence = dataclasses.replace(exemplar(6, 12, HOSTILE), text="".join(HOSTILE))
    page = show(synthetic(name=name, exemplar=sentence))
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("img, main b").count() == 0
    assert name in page.locator("h1").inner_text()
    assert page.locator("blockquote").inner_text() == "".join(HOSTILE)
    assert page.locator("#graph g.token title").all_text_contents()[::2] == list(HOSTILE)
    assert "<b>a</b>" in page.locator("#cosine .ytick text").all_text_contents()


def test_the_policy_stops_what_escaping_would_let_through(browser, tmp_path):
    path = tmp_path / "report.html"
    smuggled = (
        "<img id=probe src=http://127.0.0.1:9/x onerror=window.pwned=1 onclick=window.pwned=2><script>pwned=3</script>"
    )
    path.write_text(
        render_page(synthetic(1, 1)).replace("</main>", smuggled + "</main>"), encoding="utf-8", newline="\n"
    )
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(path.as_uri())
    page.locator("#probe").dispatch_event("click")
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert sum("Content Security Policy" in text for text in refused) >= 3
    page.close()


def test_a_diagnosis_without_values_or_sentence(show):
    page = show(blank())
    assert [len(traces(page, plot)) for plot in ("similarity", "ladder", "mixing")] == [10, 9, 1]
    assert page.locator("#cosine, #graph").count() == 0
    assert "No sentence of this text is short enough" in page.locator("main").inner_text()
