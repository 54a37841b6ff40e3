"""Results as files, a page and tables: `write_X(result, out)` and `print_X(result, console)` for each study.

>>> import tempfile
>>> from pathlib import Path
>>> from jaxsmooth.report import write_verification
>>> from jaxsmooth.results.summaries import DataSummary, ModelSummary
>>> from jaxsmooth.results.verification import Verification
>>> model = ModelSummary("made-up", "bert", 1, 1, 8, 8, "gelu", 100, "float32")
>>> found = Verification(model, DataSummary("none", 0, 0, 0), (), (), {}, {})  # as jaxsmooth.verify returns it
>>> with tempfile.TemporaryDirectory() as folder:
...     write_verification(found, Path(folder) / "mine")["checks"].name
'verify.json'

The contents page is `__init__.pyi`; what draws is imported when it is asked for.
"""

import lazy_loader

# Now: the module of this name would otherwise stand in its place.
from .headline import headline as headline

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
