"""One self-contained HTML page on all three models, and the same headline for the terminal."""

from evaluation.report.headline import headline_table, load_scorecards
from evaluation.report.page import write_html_report

__all__ = ["headline_table", "load_scorecards", "write_html_report"]
