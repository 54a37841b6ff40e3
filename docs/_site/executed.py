"""Which examples the site runs: every Python block of every page, and the commands of tutorials and how-to pages.

A page stays plain Markdown. Before the site's parser sees it, its ```python blocks become cells of a notebook, so that
they are run in their order, in a kernel of the page's own, and their output stands below them. A block that cannot be
run has a comment in front of it that says why:

    <!-- not run: needs TensorFlow -->

What a picture shows is said in the fence, for those who cannot see it: ```python alt="The rate falls."
"""

import json
import re
from pathlib import Path

FENCE = re.compile(r"^```(?P<kind>python|console)(?P<info>[^\n]*)\n(?P<code>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: [^>\n]+ -->\s*$")
COMMANDS_RUN = ("howto/", "tutorials/", "coming-from/")
"""Folders whose ```console blocks are run too."""

BEFORE = {
    "tasks": 'import jaxsmooth\n\nmodel, tokenizer = jaxsmooth.load("tiny")',
}
"""What a page takes as given, run unseen before its first block."""

HEAD = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"


def cell(code: str, *, tags: str = "", alt: str = "") -> str:
    """A code cell of MyST-NB."""
    options = {"tags": [tags]} if tags else {}
    if alt:
        options["mystnb"] = {"image": {"alt": alt}}
    head = f"---\n{json.dumps(options)}\n---\n" if options else ""
    return f"```{{code-cell}} python\n{head}{code.rstrip()}\n```\n"


def as_notebook(page: str, text: str) -> str:
    """The text of a page with its examples as cells; unchanged where it has none.

    Args:
      page: its name, as "howto/load".
      text: its Markdown.
    """
    count = 0

    def replaced(match: re.Match) -> str:
        nonlocal count
        whole, kind, code = match.group(), match["kind"], match["code"]
        if NOT_RUN.search(text[: match.start()]):
            return whole
        if kind == "console" and not page.startswith(COMMANDS_RUN):
            return whole
        count += 1
        if kind == "python":
            alt = re.search(r'alt="([^"]*)"', match["info"])
            return cell(code, alt=alt[1] if alt else "")
        return f"{whole}\n\n{cell(f'from console import run{chr(10)}{chr(10)}run({code!r})', tags='remove-input')}"

    made = FENCE.sub(replaced, text)
    if not count:
        return text
    if page in BEFORE:
        made = cell(BEFORE[page], tags="remove-cell") + "\n" + made
    return HEAD + made


def blocks(folder: Path) -> dict[str, list[tuple[str, bool]]]:
    """Page -> its Python blocks, each with whether it is run."""
    found = {}
    for path in sorted(folder.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        found[path.relative_to(folder).with_suffix("").as_posix()] = [
            (match["code"], not NOT_RUN.search(text[: match.start()]))
            for match in FENCE.finditer(text)
            if match["kind"] == "python"
        ]
    return found
