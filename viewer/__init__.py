"""Looking: the Streamlit app that shows a photo through all three models, and their scorecards."""

from viewer.server import command, run

__all__ = ["command", "run"]
