"""The formulas of the pages, which are written in plain characters, set as mathematics.

`d_M(H)² = (1/n) Σ_{i<j} ‖h_i − h_j‖²` reads well in a plain file and stays so there. On the site indices are lowered,
exponents raised and, in a formula of its own (an indented block), variables slanted. Formulas in dollar signs are LaTeX
and become MathML, which browsers draw by themselves: no script and no network.
"""

import html
import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

MATHEMATICAL = {
    *("theory", "lemmas", "rates", "certify", "sinks", "basin", "every-input", "causal", "looped", "ranks"),
    *("separation", "initialisation", "speed", "fate", "hypotheses", "catalogue", "texts", "theorems", "properties"),
    *("compare", "paper"),
}
"""Pages whose plain formulas are set."""

_SCRIPT = (
    r"\{[^{}]*\}|\([^()\s]{1,6}\)|min|max|[h-m]{1,3}\d?(?![a-z_])|[a-z]|QK|VO|[A-Z]|[−-]?\d+|−?½"
    r"|[^\s\w{}()\[\],.;:|‖]|\w"
)
SCRIPT = re.compile(rf"([_^])({_SCRIPT})")
IDENTIFIER = re.compile(
    r"(?<![A-Za-z])(?!(?:max|min|sup|inf|lim)_)[A-Za-z][a-z0-9]+_(?!max|min)[a-z0-9]{2,}|__|\w\.\w+_\w"
)
WORDS = re.compile(r"L\d+b?|[A-Za-z]+|[<>&]")
UPRIGHT = {"LN", "SA", "in", "of", "by", "or", "to", "is", "tr", "fl", "ln", "max", "min", "log", "det", "dim"}
CHUNK = re.compile(r"\s+|(?:\{[^{}]*\}|\S)+")
LABEL = re.compile(r"^(?P<formula>.*?\S)\s{3,}(?P<label>\[[^\]]*\].*|\(\w+\))$")


def parts(text: str) -> Iterator[tuple[str, str]]:
    """The text in pieces: ("text", ...), ("_", a subscript), ("^", a superscript); names with underscores stay whole.

    >>> list(parts("d_M(H) of std_attn"))
    [('text', 'd'), ('_', 'M'), ('text', '(H) of std_attn')]
    >>> list(parts("A_hXW_h"))
    [('text', 'A'), ('_', 'h'), ('text', 'XW'), ('_', 'h')]
    """
    kept = ""
    for word in CHUNK.findall(text):
        if not re.search(r"\S[_^]\S", word) or IDENTIFIER.search(word):
            kept += word
            continue
        place = 0
        for match in SCRIPT.finditer(word):
            kept += word[place : match.start()]
            place = match.end()
            if kept:
                yield "text", kept
            kept = ""
            inner = match[2]
            yield match[1], inner[1:-1] if inner.startswith("{") else inner
        kept += word[place:]
    if kept:
        yield "text", kept


def slanted(text: str) -> str:
    """Text of a formula as HTML: single letters are variables, words are words."""

    def one(match: re.Match) -> str:
        word = match.group()
        if not word.isalpha():
            return html.escape(word)
        if word in UPRIGHT or (len(word) > 2 and word.islower()) or (len(word) > 3 and not word.isupper()):
            return word
        return f"<i>{word}</i>"

    return WORDS.sub(one, text)


def formula_html(block: str) -> str:
    """An indented block of formulas as HTML, a line a line, with its label at the right."""
    lines = []
    for line in block.rstrip("\n").splitlines():
        label = LABEL.match(line)
        made = ""
        for kind, text in parts(label["formula"] if label else line):
            tag = {"_": "sub", "^": "sup"}.get(kind)
            inner = slanted(text) if tag is None else "".join(_inner(text))
            made += f"<{tag}>{inner}</{tag}>" if tag else inner
        right = f'<span class="label">{html.escape(label["label"])}</span>' if label else ""
        lines.append(f'<div class="line"><span>{made}</span>{right}</div>')
    return f'<div class="formula">{"".join(lines)}</div>'


def _inner(text: str) -> Iterator[str]:
    for kind, piece in parts(text):
        tag = {"_": "sub", "^": "sup"}.get(kind)
        yield f"<{tag}>{slanted(piece)}</{tag}>" if tag else slanted(piece)


class SetFormulas(SphinxPostTransform):
    """Indices and exponents in the text of mathematical pages, and their indented blocks as formulas."""

    default_priority = 400
    formats = ("html",)

    def run(self, **options: object) -> None:
        if self.env.docname not in MATHEMATICAL:
            return
        for node in list(self.document.findall(nodes.literal_block)):
            if node.get("language", "none") in ("none", "default", "text", ""):
                node.replace_self(nodes.raw("", formula_html(node.astext()), format="html"))
        for node in list(self.document.findall(nodes.Text)):
            if isinstance(node.parent, (nodes.literal, nodes.literal_block, nodes.raw, nodes.comment)):
                continue
            found = list(parts(str(node)))
            if len(found) > 1:
                node.parent.replace(node, list(_nodes(found)))


def _nodes(found: Iterable[tuple[str, str]]) -> Iterator[nodes.Node]:
    for kind, text in found:
        if kind == "text":
            yield nodes.Text(text)
        else:
            yield (nodes.subscript if kind == "_" else nodes.superscript)("", "", *_nodes(parts(text)))


def mathml(latex: str, display: str) -> str:
    """LaTeX as MathML."""
    return convert(latex, display=display)


def visit_inline(self: object, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))  # type: ignore[attr-defined]
    raise nodes.SkipNode


def visit_block(self: object, node: nodes.math_block) -> None:
    # It may be wider than a phone's screen; what is scrolled must be reached by the keyboard.
    self.body.append(f'<div class="formula display" tabindex="0">{mathml(node.astext(), "block")}</div>')  # type: ignore[attr-defined]
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.add_post_transform(SetFormulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
