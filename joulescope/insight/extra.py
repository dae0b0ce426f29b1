"""The extra of which some answers need packages."""

ANALYSIS_LINE = "pip install 'joulescope-inference[analysis]'"
"""Installs what draws pictures and asks ledgers; printed where it is missing."""
