"""No link of the finished site leads nowhere: every page, file and anchor that is named inside it is there."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The anchors of a page and what it names."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.named: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value and tag in ("a", "img", "script", "link", "source", "object"):
                self.named.add(value)


def read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken(site: Path) -> list[str]:
    """Every link inside a site that leads nowhere, as "page: link".

    Args:
      site: the folder of the HTML pages.
    """
    pages = {path: read(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        for link in sorted(page.named):
            target = urlsplit(link)
            if target.scheme or target.netloc or link == "#":
                continue
            to = (path.parent / unquote(target.path)).resolve() if target.path else path
            to = to / "index.html" if to.is_dir() else to
            anchor = unquote(target.fragment)
            if not to.exists() or (anchor and to in pages and anchor not in pages[to].anchors):
                found.append(f"{path.relative_to(site)}: {link}")
    return found
