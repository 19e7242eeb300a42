"""The Streamlit script: ``streamlit run viewer/app.py -- --data data --models build/models --scorecards
build/scorecards``.
"""

import hashlib
import sys
from pathlib import Path

import streamlit as st

from trashnet.errors import UserError
from trashnet.taxonomy import load_taxonomy
from viewer.gate_page import show_gate_page
from viewer.photo_page import show_photo_page
from viewer.scorecard_page import show_scorecard_page
from viewer.server import ViewerOptions

ICON = Path(__file__).with_name("icon.svg")


def main() -> None:
    """Show the pages; an invalid option or taxonomy is an error message on the page."""
    st.set_page_config("TrashNet viewer", str(ICON), layout="wide")
    st.html(
        "<style>.stMainBlockContainer {padding: 4rem 3rem}</style>"
    )  # the default leaves a quarter of a laptop's screen empty
    try:
        options = ViewerOptions.parse(sys.argv[1:])
        taxonomy = load_taxonomy(options.taxonomy)
    except UserError as error:
        st.error(str(error))
        return
    key = hashlib.sha256(options.taxonomy.read_bytes()).hexdigest()

    def photos() -> None:
        show_photo_page(options, taxonomy, key)

    def gate() -> None:
        show_gate_page(options, taxonomy, key)

    def scorecards() -> None:
        show_scorecard_page(options)

    pages = [
        st.Page(photos, title="Photos", icon=":material/photo_camera:", default=True),
        st.Page(gate, title="Gate", icon=":material/rule:", url_path="gate"),
        st.Page(scorecards, title="Scorecards", icon=":material/leaderboard:", url_path="scorecards"),
    ]
    st.navigation(pages, position="top").run()


main()
