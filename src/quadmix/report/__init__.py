"""A run folder -> one self-contained page. Reads files, computes nothing new."""

from quadmix.report.verdict import Fact, Verdict, verdict
from quadmix.report.write import write_report

__all__ = ["Fact", "Verdict", "verdict", "write_report"]
