"""The scorecards of the three models side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from trashnet.errors import UserError
from trashnet.models import SSD_FLOAT, SSD_INT8
from viewer.scorecards import (
    MEASURES,
    TITLES,
    TableValue,
    class_rows,
    comparable,
    describe_measurement,
    model_rows,
    read_scorecards,
    stream_rows,
)
from viewer.server import ViewerOptions
from viewer.sources import Source, choose_source, fetch_scorecards, show_problems

LOWER_IS_BETTER = ("Latency", "Size")
BASELINES = {SSD_INT8.title: SSD_FLOAT.title}  # the difference is what quantisation costs
UNITS = {"Utility": "%.1f of 100", "Latency": "%.1f ms", "Size": "%.1f MiB"}
METRICS = ("Utility", "AP at IoU 0.5", "Latency", "Size")


def show_scorecard_page(options: ViewerOptions) -> None:
    """Show the page: the scorecards of the local build, or those that a candidate brought."""
    with st.sidebar:
        source = choose_source(options)
        try:
            folder = choose_scorecards(source, options)
        except UserError as error:
            st.error(str(error), icon=":material/error:")
            return
    show_problems(source)
    if folder is not None:
        show_scorecards(folder)


def choose_scorecards(source: Source, options: ViewerOptions) -> Path | None:
    """The folder of the scorecards to show, ``None`` after the page has said why there is none.

    Raises :class:`UserError` if a candidate's cannot be downloaded.
    """
    deployment, in_use = source.deployment, source.in_use
    if deployment is None or in_use is None:
        return options.scorecards
    candidates = {c.version: c for c in (in_use.newest, *in_use.champions.values()) if c is not None}
    if not candidates:
        st.info("The flywheel has no candidate yet.", icon=":material/hourglass_empty:")
        return None
    version = st.selectbox("Candidate", list(candidates), key="card_version", persist_state="session")
    candidate = candidates[version]
    if not any(name.startswith("scorecards/") for name in candidate.files):
        st.info(f"Candidate {version} brought no scorecard.", icon=":material/hourglass_empty:")
        return None
    return fetch_scorecards(version, deployment, candidate)


def show_scorecards(folder: Path) -> None:
    """First which scorecards are missing, then the others."""
    cards, errors = read_scorecards(folder)
    for error in errors:
        st.info(error, icon=":material/hourglass_empty:")
    if not cards:
        st.markdown("No model has been evaluated yet. `dvc repro` trains, exports and evaluates all three.")
        return
    if not comparable(cards):
        st.warning(
            "These scorecards are of different frames or labels and cannot be compared. "
            "`dvc repro` writes new ones."
        )
    rows = model_rows(cards)
    for column, row in zip(st.columns(len(rows), gap="medium", border=True), rows, strict=True):
        with column:
            show_metrics(
                row,
                next((other for other in rows if other["Model"] == BASELINES.get(str(row["Model"]))), None),
            )
    st.caption(describe_measurement(cards))
    show_table(rows)

    st.markdown("#### Streams")
    show_table(stream_rows(cards))

    st.markdown("#### Classes")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = st.segmented_control(
            "Measure", list(MEASURES), default="AP", required=True, key="measure", persist_state="session"
        )
        untested = st.toggle("Include classes without test boxes", key="untested", persist_state="session")
    rows = class_rows(cards, MEASURES[measure], untested=untested)
    show_table(rows, bars=[TITLES[name] for name in cards])


def show_metrics(row: dict[str, TableValue], baseline: dict[str, TableValue] | None) -> None:
    """A model's four headline metrics, and their difference from its ``baseline`` if it has one."""
    st.markdown(f"**{row['Model']}**")
    columns = [*st.columns(2), *st.columns(2)]
    for column, name in zip(columns, METRICS, strict=True):
        value, other = row[name], baseline[name] if baseline else None
        delta = (
            f"{value - other:+.1f} against float"
            if baseline and isinstance(value, float) and isinstance(other, float)
            else None
        )
        text = "n/a" if value is None else UNITS.get(name, "%.1f %%") % value
        column.metric(name, text, delta, delta_color="inverse" if name in LOWER_IS_BETTER else "normal")


def show_table(rows: Sequence[dict[str, TableValue]], bars: Sequence[str] = ()) -> None:
    """Rows of numbers; percent unless :data:`UNITS` says otherwise, counts as they are, ``bars`` as bars."""
    configuration: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        if name in bars:
            configuration[name] = st.column_config.ProgressColumn(
                name, format="%.1f %%", min_value=0, max_value=100
            )
        elif any(isinstance(row[name], float) for row in rows):
            configuration[name] = st.column_config.NumberColumn(name, format=UNITS.get(name, "%.1f %%"))
    st.dataframe(list(rows), hide_index=True, column_config=configuration, placeholder="–")
