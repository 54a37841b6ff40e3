"""The documentation site; `make docs` builds it, `docs/design.md` says why with Sphinx."""

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_site"))

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's "Very slow compile?" of a slow machine is no part of a page

import jaxsmooth  # noqa: E402

project = "jaxsmooth"
author = "the jaxsmooth developers"
version = release = jaxsmooth.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "formulas",
    "site_parts",
]
exclude_patterns = ["_site", "_static", "compare", "images"]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext", ".ipynb": "myst-nb"}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4


def _library() -> str:
    """Changes with the library, so that an output is never older than the code that is shown to have made it."""
    digest = hashlib.sha256()
    for path in sorted([*(HERE.parent / "jaxsmooth").rglob("*.py"), HERE / "_site" / "console.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / ".cache" / "docs" / "executed" / _library())
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_execution_in_temp = True
nb_merge_streams = True
nb_output_stderr = "remove-warn"

autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False  # types with a star, as Float[Array, "*B T"], are no emphasis
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = f"jaxsmooth {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 8,
}
html_sidebars = {"index": [], "quickstart": []}
copyright = author
