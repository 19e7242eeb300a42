"""The scorecards of the three models beside each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from viewer.scorecards import (
    MEASURES,
    TITLES,
    Cell,
    class_rows,
    comparable,
    facts,
    headline_rows,
    read_scorecards,
    stream_rows,
)

LOWER_IS_BETTER = ("Latency", "Size")
TWINS = {"SSD int8": "SSD float"}  # what quantisation costs
UNITS = {"Latency": "%.1f ms", "Size": "%.1f MiB"}
METRICS = ("Sorted right", "AP at IoU 0.5", "Latency", "Size")


def scorecard_page(folder: Path) -> None:
    """The whole page; what is missing is said first, the rest is shown."""
    cards, errors = read_scorecards(folder)
    for complaint in errors:
        st.info(complaint, icon=":material/hourglass_empty:")
    if not cards:
        st.markdown("No model has been judged yet. `dvc repro` trains, exports and judges all three.")
        return
    if not comparable(cards):
        st.warning(
            "These were judged on different frames, labels or sorting scores: do not compare them. `dvc "
            "repro` makes them anew."
        )
    rows = headline_rows(cards)
    for column, row in zip(st.columns(len(rows), gap="medium", border=True), rows, strict=True):
        with column:
            tile(row, next((other for other in rows if other["Model"] == TWINS.get(str(row["Model"]))), None))
    st.caption(facts(cards))
    table(rows)

    st.markdown("#### Streams")
    table(stream_rows(cards))

    st.markdown("#### Classes")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure = st.segmented_control(
            "Measure", list(MEASURES), default="AP", required=True, key="measure", persist_state="session"
        )
        untested = st.toggle("Also classes without a test box", key="untested", persist_state="session")
    of_classes = class_rows(cards, MEASURES[measure], untested=untested)
    table(of_classes, bars=[TITLES[name] for name in cards])


def tile(row: dict[str, Cell], twin: dict[str, Cell] | None) -> None:
    """One model's four numbers that matter most; against those of its ``twin``, where it has one."""
    st.markdown(f"**{row['Model']}**")
    columns = [*st.columns(2), *st.columns(2)]
    for column, name in zip(columns, METRICS, strict=True):
        value, other = row[name], twin[name] if twin else None
        delta = (
            f"{value - other:+.1f} against float"
            if twin and isinstance(value, float) and isinstance(other, float)
            else None
        )
        words = "n/a" if value is None else UNITS.get(name, "%.1f %%") % value
        column.metric(name, words, delta, delta_color="inverse" if name in LOWER_IS_BETTER else "normal")


def table(rows: Sequence[dict[str, Cell]], bars: Sequence[str] = ()) -> None:
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
