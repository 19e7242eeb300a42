"""Looking: the Streamlit app that shows a photo through all three models, and their scorecards."""

from viewer.server import run_viewer, streamlit_command

__all__ = ["run_viewer", "streamlit_command"]
