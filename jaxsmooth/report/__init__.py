"""Result structs in, report out: verdict, JSON, figures, one self-contained page."""

from ..files import check_writable as check_writable
from .compare import comparison_json as comparison_json
from .compare import print_comparison as print_comparison
from .compare import write_comparison as write_comparison
from .converge import convergence_json as convergence_json
from .converge import print_convergence as print_convergence
from .converge import write_convergence as write_convergence
from .diagnose import ReportPaths as ReportPaths
from .diagnose import print_summary as print_summary
from .diagnose import write_report as write_report
from .figures import write_figures as write_figures
from .json import to_json as to_json
from .page import render_page as render_page
from .verdict import Verdict as Verdict
from .verdict import verdict as verdict
from .verify import print_verification as print_verification
from .verify import write_verification as write_verification
