"""Result structs in, report out: verdict, JSON, figures, one self-contained page."""

from jaxsmooth.report.comparison import comparison_json as comparison_json
from jaxsmooth.report.comparison import print_comparison as print_comparison
from jaxsmooth.report.comparison import write_comparison as write_comparison
from jaxsmooth.report.convergence import convergence_json as convergence_json
from jaxsmooth.report.convergence import print_convergence as print_convergence
from jaxsmooth.report.convergence import write_convergence as write_convergence
from jaxsmooth.report.figures import write_figures as write_figures
from jaxsmooth.report.files import check_writable as check_writable
from jaxsmooth.report.page import render_page as render_page
from jaxsmooth.report.serialise import to_json as to_json
from jaxsmooth.report.summary import print_summary as print_summary
from jaxsmooth.report.verdict import Verdict as Verdict
from jaxsmooth.report.verdict import verdict as verdict
from jaxsmooth.report.verified import print_verification as print_verification
from jaxsmooth.report.verified import write_verification as write_verification
from jaxsmooth.report.write import ReportPaths as ReportPaths
from jaxsmooth.report.write import write_report as write_report
