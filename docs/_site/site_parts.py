"""The extension that makes pages of plain Markdown into the site; `conf.py` names it."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util import logging

import api
import links
from executed import as_notebook

LOG = logging.getLogger(__name__)
OUTSIDE = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>(?:\.\./)+[\w./-]+\.\w+)\)")
INSIDE = re.compile(r"^(?:jaxsmooth\.)?(?P<path>[a-z_]+(?:\.\w+)*)(?:\(.*\))?$")
PERHAPS = re.compile(r"^([\w./-]+\*)\n", re.MULTILINE)
"""An entry of a table of contents that may match no page: left out then, as Sphinx would warn."""
SEVERAL_LINES = re.compile(r"^```console\n(?=(?:(?!```).*\n)*> )", re.MULTILINE)
"""A command over several lines, with a quote that is open between them, which the lexer of sessions cannot read."""
QUALIFIED = re.compile(
    r"\b(?:jaxlib\._jax|jaxlib\.xla_extension|jaxtyping|collections\.abc|typing|pathlib|jaxsmooth(?:\.\w+)*)\.(?=[A-Z])"
)
PACKAGES = ("", "theory.", "metrics.", "mitigations.", "interventions.", "results.", "report.", "bert.fusion.")


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page as the parser is to see it: examples as cells, files from outside as downloads."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return
    text = as_notebook(docname, source[0])
    here = path.parent

    def download(match: re.Match) -> str:
        file = (here / match["path"]).resolve()
        outside = file.is_file() and not file.is_relative_to(Path(app.srcdir))
        return f"{{download}}`{match['text']} <{match['path']}>`" if outside else match.group()

    text = PERHAPS.sub(lambda match: match.group() if list(here.glob(match[1] + ".md")) else "", text)
    text = SEVERAL_LINES.sub("```text\n", text)
    source[0] = OUTSIDE.sub(download, text)


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Names of the library in `code` lead to the reference."""
    known = app.env.domains.python_domain.objects
    for node in list(doctree.findall(nodes.literal)):
        match = INSIDE.match(node.astext())
        if match is None or isinstance(node.parent, nodes.reference) or _in_signature(node):
            continue
        found = next((known[name] for name in _names(match["path"]) if name in known), None)
        if found is not None and found.docname != docname:
            uri = app.builder.get_relative_uri(docname, found.docname)
            link = nodes.reference("", "", internal=True, refuri=f"{uri}#{found.node_id}")
            node.parent.replace(node, link)
            link += node


def plain_signature(app: Sphinx, what: str, name: str, value: object, options: object, text: str, back: str) -> tuple:
    """A signature with the names that are written in the source: Array for jaxlib._jax.Array."""
    return tuple(QUALIFIED.sub("", side) if side else side for side in (text, back))


def _names(path: str) -> list[str]:
    """The full names that `theory.mixing_rate` or `mixing_rate` may stand for. A bare word needs an underscore."""
    if "." in path:
        return [f"jaxsmooth.{path}"]
    return [f"jaxsmooth.{package}{path}" for package in PACKAGES] if "_" in path else []


def _in_signature(node: nodes.Node) -> bool:
    parent = node.parent
    while parent is not None:
        if "sig" in parent.get("classes", []) or isinstance(parent, nodes.title):
            return True
        parent = parent.parent
    return False


def check(app: Sphinx, error: Exception | None) -> None:
    """At the end: no public name is missing in the reference, and no link leads nowhere."""
    if error is not None or app.builder.format != "html":
        return
    missing = api.missing(set(app.env.domains.python_domain.objects))
    if missing:
        raise SphinxError(f"{len(missing)} public names are missing in the reference: {', '.join(missing)}")
    broken = links.broken(Path(app.outdir))
    if broken:
        raise SphinxError(f"{len(broken)} links lead nowhere:\n" + "\n".join(broken))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", lambda app: api.write(Path(app.srcdir) / "api"), priority=100)
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", api.escape_docstring, priority=100)
    app.connect("doctree-resolved", link_names)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("build-finished", check, priority=900)  # after the theme has written its styles
    return {"parallel_read_safe": True, "parallel_write_safe": True}
