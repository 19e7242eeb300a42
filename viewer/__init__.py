"""The Streamlit app that runs all three models on a photo, and shows their scorecards."""

from viewer.server import run_viewer, streamlit_command

__all__ = ["run_viewer", "streamlit_command"]
