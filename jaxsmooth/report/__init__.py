"""Results as files, a page and tables: `write_X(result, out)` and `print_X(result, console)` for each study.

>>> import tempfile
>>> from pathlib import Path
>>> from jaxsmooth.results.summaries import DataSummary, ModelSummary
>>> from jaxsmooth.results.verification import Verification
>>> model = ModelSummary("made-up", "bert", 1, 1, 8, 8, "gelu", 100, "float32")
>>> found = Verification(model, DataSummary("none", 0, 0, 0), (), (), {}, {})  # as jaxsmooth.verify returns it
>>> with tempfile.TemporaryDirectory() as folder:
...     write_verification(found, Path(folder) / "mine")["checks"].name
'verify.json'
"""

from ..files import check_writable as check_writable
from .compare import comparison_json as comparison_json
from .compare import print_comparison as print_comparison
from .compare import write_comparison as write_comparison
from .converge import convergence_json as convergence_json
from .converge import print_convergence as print_convergence
from .converge import write_convergence as write_convergence
from .diagnose import print_diagnosis as print_diagnosis
from .diagnose import write_diagnosis as write_diagnosis
from .fate.write import fates_json as fates_json
from .fate.write import print_fates as print_fates
from .fate.write import write_fates as write_fates
from .figures import write_figures as write_figures
from .headline import Headline as Headline
from .headline import headline as headline
from .json import to_json as to_json
from .page import render_page as render_page
from .shown.figure import Figure as Figure
from .shown.kinds import plot as plot
from .terminal import print_paths as print_paths
from .verify import print_verification as print_verification
from .verify import write_verification as write_verification
