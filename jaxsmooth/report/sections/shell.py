"""What every page shares: templates, styles, and a policy under which no request leaves the page."""

import base64
import contextlib
import functools
import hashlib
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import vl_convert
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ...files import atomic_write


def environment() -> Environment:
    """Jinja as pages use it: text is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["symbols"] = symbols
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return found


def template(name: str) -> Template:
    """The template of a page; all begin and end as base.html says."""
    return environment().get_template(name)


def asset(name: str) -> str:
    """A template, style or script of the package."""
    return files("jaxsmooth.report").joinpath(name).read_text(encoding="utf-8")


def script(source: str) -> str:
    """A script as the browser hashes it: parsing turns every line ending into a plain newline."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def vega(folder: Path | None = None) -> str:
    """Vega, which draws the charts of a page, as one script.

    To bundle it takes vl-convert three seconds, and gives the same whenever its version is.

    Args:
      folder: where the script is kept with its digest, and read where the digest is right; None keeps nothing.
    """
    path = None if folder is None else folder / f"vega-{version('vl-convert-python')}.js"
    try:
        digest, _, found = "".partition("\n") if path is None else path.read_text(encoding="utf-8").partition("\n")
        if found and digest == hashlib.sha256(found.encode()).hexdigest():
            return found
    except (OSError, UnicodeDecodeError):
        pass  # made anew, and where nothing can be written as often as it is asked for
    made = _bundled()
    if path is not None:
        with contextlib.suppress(OSError):
            atomic_write(path, f"{hashlib.sha256(made.encode()).hexdigest()}\n{made}")
    return made


@functools.cache
def _bundled() -> str:
    # Its stub asks for a snippet; without one the bundle gives `vegaEmbed` to the page.
    return script(vl_convert.javascript_bundle())  # type: ignore[call-arg]


def policy(*scripts: str) -> str:
    """The content security policy of a page with these scripts."""
    digests = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    # Vega writes style sheets and style attributes as it draws. Its expressions are interpreted, not evaluated.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


_MARKS = re.compile(r"`([^`]+)`|\b([dW])_([MQKVO])(?![A-Za-z_])|²_F|(?<=\d) %")


def symbols(text: str) -> Markup:
    """Text with d_M, W_Q and ‖H‖²_F as they are written, names in backticks as code, and no line between 3 and %.

    >>> print(symbols("`a_b` of d_M < 3 %"))
    <code>a_b</code> of d<sub>M</sub> &lt; 3\xa0%
    """

    def marked(found: re.Match[str]) -> str:
        code, letter, index = found.groups()
        if code:
            return f"<code>{code}</code>"
        if letter:
            return f"{letter}<sub>{index}</sub>"
        return "²<sub>F</sub>" if found[0] == "²_F" else "\N{NO-BREAK SPACE}%"

    return Markup(_MARKS.sub(marked, str(escape(text))))
