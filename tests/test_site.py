"""The built site in a real browser: axe has nothing serious to say, and nothing sticks out of a phone's screen."""

import shutil

import pytest
from support import ROOT

SITE = ROOT / ".cache" / "docs" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PAGES = ("index", "tutorials/theorist", "howto/sweep-std", "book/index", "theory", "compare", "api/metrics")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to look at the site in a browser"),
    pytest.mark.skipif(not SITE.exists(), reason="the site is not built: make docs"),
]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(QUIET))
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits(browser, name, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((SITE / f"{name}.html").as_uri())
    found = axe.Axe().run(page).response["violations"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []  # it works offline
