"""Does an engine keep its promises? Every clause that can be seen from outside, against any engine, over real sockets."""

from .report import Finding, Report, Verdict
from .run import CHECKS, run_check, run_conformance

__all__ = ["CHECKS", "Finding", "Report", "Verdict", "run_check", "run_conformance"]
