"""The page in a real browser: it draws, it reacts, it asks for nothing, it fits the screen."""

import dataclasses
import functools
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.report import blank, exemplar, synthetic, verification

from jaxsmooth.report import render_page
from jaxsmooth.report.format import digits
from jaxsmooth.report.verify import verification_page

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

BLACK = "rgb(0, 0, 0)"
PLOT_TEXTS = """() => [...document.querySelectorAll(".plot text")]
  .filter(e => e.textContent && !e.closest("#mixing .role-mark, #sinks .role-mark"))
  .map(e => ({
    words: e.textContent, plot: e.closest(".plot").id, fill: getComputedStyle(e).fill,
    ground: getComputedStyle(e.closest("section")).backgroundColor,
  }))"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to test the page in a browser")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(QUIET))
        yield running
        running.close()


@functools.cache
def plain_page():
    return render_page(synthetic())


@pytest.fixture
def show(browser, tmp_path):
    """Open a diagnosis as a page; at the end no request but the page's own and no complaint may have been seen."""
    opened, requests, complaints = [], [], []

    def open_page(diagnosis=None, width=1280, scheme="light"):
        path = tmp_path / "report.html"
        path.write_text(plain_page() if diagnosis is None else render_page(diagnosis), encoding="utf-8", newline="\n")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
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


def luminance(colour):
    """Of a CSS colour rgb(r, g, b), as WCAG 2.2 defines it."""
    channels = [int(each) / 255 for each in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def marks(page, plot, kind):
    """The marks of a kind in a plot, those of its legend and axes left out."""
    return page.locator(f"#{plot} .mark-{kind}.role-mark > *")


def rows(page, plot, kind):
    """The data of those marks."""
    return marks(page, plot, kind).evaluate_all("all => all.map(mark => mark.__data__.datum)")


def set_layer(page, layer):
    page.locator("#layer").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", str(layer)
    )


def test_every_plot_is_drawn(show):
    page = show()
    # Two quantities, each with two bands, a line and a point for every layer; the range and eight rates; one map each.
    layers = {"similarity": 7, "threshold": 6, "norms": 6}
    for plot, count in layers.items():
        found = [marks(page, plot, kind).count() for kind in ("area", "line", "symbol")]
        assert found == [4, 2, 2 * count], plot
    assert [marks(page, "ladder", kind).count() for kind in ("area", "line", "symbol")] == [1, 8, 8 * 6]
    assert [marks(page, "alike", kind).count() for kind in ("area", "line", "symbol")] == [2, 1, 5]
    assert marks(page, "mixing", "rect").count() == 6 * 12
    assert marks(page, "cosine", "rect").count() == 11**2
    assert [marks(page, "principal", kind).count() for kind in ("area", "line", "symbol")] == [4, 2, 12]
    assert marks(page, "attribution", "rect").count() == 6 * 4
    assert [marks(page, "baseline", kind).count() for kind in ("line", "symbol")] == [3, 3 * 7]
    assert page.locator("tbody tr").count() == 7 + 6 * 4  # layers, and their matrices
    for plot in (
        "similarity",
        "ladder",
        "threshold",
        "norms",
        "mixing",
        "sinks",
        "principal",
        "alike",
        "cosine",
        "graph",
    ):
        box = page.locator(f"#{plot} svg").first.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 200


def test_the_slider_and_the_head_move_map_and_graph(show):
    diagnosis = synthetic()
    page = show(diagnosis)
    seen = {}
    for layer in (1, 4, 6):
        set_layer(page, layer)
        drawn = {(row["i"], row["j"]): row["value"] for row in rows(page, "cosine", "rect")}
        assert drawn[2, 5] == pytest.approx(float(diagnosis.exemplar.cosine[layer][2, 5]), rel=5.1e-5)
        assert page.locator("#layer-shown").inner_text() == str(layer)
        assert f"layer {layer}" in page.locator("#cosine .role-title").text_content()
        mean = diagnosis.exemplar.attn[layer - 1].mean(axis=0)
        assert marks(page, "graph", "rule").count() == (mean >= 0.99 / mean.shape[0]).sum()
        seen[layer] = page.locator("#graph svg").inner_html()
    assert len(set(seen.values())) == 3
    page.select_option("#head", label="head 4")
    page.wait_for_function("document.getElementById('graph').textContent.includes('head 4')")
    head = diagnosis.exemplar.attn[5, 3]
    assert marks(page, "graph", "rule").count() == (head >= 0.99 / head.shape[0]).sum()
    set_layer(page, 0)
    assert marks(page, "graph", "rule").count() == 0
    assert "no attention" in page.locator("#graph .role-title").text_content()
    assert "embedding" in page.locator("#layer-shown").inner_text()


def test_pointing_at_a_token_singles_out_its_edges(show):
    page = show()
    weights = synthetic().exemplar.attn[5].mean(axis=0)
    kept = weights >= 0.99 / weights.shape[0]
    tokens = marks(page, "graph", "text")
    for place, own in ((0, kept[0].sum()), (11 + 3, kept[:, 3].sum())):  # the first that reads, the fourth that is read
        tokens.nth(place).hover()
        page.wait_for_function("document.querySelectorAll('#graph .mark-rule [opacity=\"0.03\"]').length > 0")
        faint = page.locator('#graph .mark-rule [opacity="0.03"]').count()
        assert faint == kept.sum() - own
        page.mouse.move(1, 1)
        page.wait_for_function("document.querySelectorAll('#graph .mark-rule [opacity=\"0.03\"]').length == 0")


def test_a_token_is_chosen_without_a_pointer(show):
    page = show()
    tokens, attn = synthetic().exemplar.tokens, synthetic().exemplar.attn[5].mean(axis=0)
    kept = attn >= 0.99 / attn.shape[0]
    page.select_option("#token", "3")
    page.wait_for_function("document.querySelectorAll('#graph .mark-rule [opacity=\"0.03\"]').length > 0")
    own = kept[2].sum() + kept[:, 2].sum() - kept[2, 2]
    assert page.locator('#graph .mark-rule [opacity="0.03"]').count() == kept.sum() - own
    strongest = int(np.argmax(attn[2]))
    words = page.locator("#in-words").inner_text()
    assert f"Strongest attention: “{tokens[2]}” to “{tokens[strongest]}” ({attn[2, strongest]:.2f})" in words
    cosine = synthetic().exemplar.cosine[6][2].copy()
    cosine[2] = -1
    assert words.startswith(f"Most alike: “{tokens[2]}” and “{tokens[int(np.argmax(cosine))]}” ({cosine.max():.2f})")


def test_the_keyboard_meets_controls_only(show):
    page = show()
    page.evaluate("window.met = []; document.addEventListener('focusin', e => window.met.push(e.target))")
    for _ in range(80):
        page.keyboard.press("Tab")
    met = page.evaluate("[...new Set(window.met)].map(e => e.closest('.plot') ? 'plot' : e.tagName)")
    assert "plot" not in met
    assert met.count("BUTTON") == 12
    assert met.count("SELECT") == 2
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    images = [node for node in tree if node.get("role", {}).get("value") in ("image", "img")]
    assert len(images) == 12
    assert not any(node["name"]["value"] == "" for node in images)
    assert not any("graphics" in node.get("role", {}).get("value", "").lower() for node in tree if not node["ignored"])


def test_pointing_between_points_shows_the_nearest_layer(show):
    page = show()
    spread = synthetic().cosine_similarity
    page.locator("#similarity").scroll_into_view_if_needed()
    points = [marks(page, "similarity", "symbol").nth(k).bounding_box() for k in (2, 3)]
    x = points[0]["x"] + 0.7 * (points[1]["x"] - points[0]["x"])
    page.mouse.move(x, points[0]["y"] - 40)
    page.mouse.move(x, points[0]["y"] - 41)
    page.wait_for_selector("#vg-tooltip-element.visible")
    words = page.locator("#vg-tooltip-element").inner_text()
    assert f"{digits(spread.mean[3])} ± {digits(spread.std[3])}" in words


def test_a_plot_is_saved_as_svg(show):
    page = show(scheme="dark")
    with page.expect_download() as waited:
        page.get_by_role("button", name="Save as SVG: ladder").click()
    assert waited.value.suggested_filename == "ladder.svg"
    saved = Path(waited.value.path()).read_text(encoding="utf-8")
    assert ElementTree.fromstring(saved).tag == "{http://www.w3.org/2000/svg}svg"
    assert "#D55E00" in saved
    assert "L1  theorem, per layer" in saved


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_texts_of_plots_stand_out(show, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = show(scheme=scheme)
    found = axe.Axe().run(page)
    assert found.generate_snapshot() == ""
    # What axe passes over: texts of one or two letters, and whatever is hidden from screen readers.
    for text in page.evaluate(PLOT_TEXTS):
        assert contrast(text["fill"], text["ground"]) >= 4.5, text


def test_print_is_light_and_without_controls(show):
    page = show(width=720, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".controls, .save").filter(visible=True).count() == 0
    assert page.locator("#similarity .role-axis-label text").first.evaluate("e => getComputedStyle(e).fill") == BLACK
    assert page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") == 720


@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.long)])
@pytest.mark.parametrize("layers", [pytest.param(1, marks=pytest.mark.long), 12])
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
    assert [row["whole"] for row in rows(page, "graph", "text")] == list(HOSTILE) * 2
    assert "<b>a</b>" in page.locator("#cosine .role-axis-label text").all_text_contents()
    for place in range(len(HOSTILE)):
        marks(page, "graph", "text").nth(place).hover()
        page.wait_for_selector("#vg-tooltip-element.visible")
        assert HOSTILE[place] in page.locator("#vg-tooltip-element").inner_text()
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("img, main b, #vg-tooltip-element b").count() == 0


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
    for plot in ("similarity", "ladder", "threshold", "norms", "mixing", "sinks"):
        assert marks(page, plot, "symbol").count() == 0
        assert "no sentence gives a value" in page.locator(f"#{plot}").text_content()
    assert page.locator("#cosine, #graph").count() == 0
    assert "No sentence of this text is short enough" in page.locator("main").inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_of_a_verification_is_accessible_and_fits(browser, tmp_path, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    path, requests = tmp_path / "verify.html", []
    about = synthetic()
    found = verification(about.model, about.data)
    path.write_text(verification_page(found, beside=["verify.json"]), encoding="utf-8", newline="\n")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert axe.Axe().run(page).generate_snapshot() == ""
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.get_by_role("link", name="verify.json").get_attribute("href") == "verify.json"
    page.close()
