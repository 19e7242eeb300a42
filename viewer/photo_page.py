"""The page with the detections of several models on one photo, side by side."""

import html
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dataset import Labels
from trashnet import box_drawing
from trashnet.detectors import Detections
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy
from viewer import inference
from viewer.comparison import compare_streams, find_items, item_rows, sort_photo
from viewer.photo_picker import pick_photo
from viewer.scorecards import bins_score, describe_scores, read_scorecards
from viewer.server import ViewerOptions
from viewer.sources import choose_source, list_models, scorecards_of_bins, show_problems

FILTER_HELP = "Display only: the comparison counts every class."
CALLOUTS = {
    "agree": (st.success, ":material/check_circle:"),
    "partly": (st.warning, ":material/rule:"),
    "disagree": (st.warning, ":material/call_split:"),
    "nothing": (st.info, ":material/block:"),
}
DETECTION_COLUMNS = {
    "Stream": st.column_config.TextColumn(width=72),
    "Score": st.column_config.ProgressColumn(format="%.2f", min_value=0.0, max_value=1.0, width=85),
}
NARROW_COLUMNS = DETECTION_COLUMNS | {"Score": st.column_config.NumberColumn(format="%.2f", width=50)}
MAX_WIDE_COLUMNS = 3  # of models; beside more of them a bar has no room


@st.cache_resource(max_entries=8, show_spinner="Opening the model")
def open_model(path: Path, written: int, key: str, _taxonomy: Taxonomy) -> inference.ModelRunner:
    """An open model, cached until its file (``written``: a time stamp) or the taxonomy (``key``) changes."""
    return inference.ModelRunner(path, _taxonomy)


@st.cache_data(max_entries=256, show_spinner="Running the model")
def run_model(
    path: Path, written: int, key: str, sha256: str, _taxonomy: Taxonomy, _image: NDArray[np.uint8]
) -> inference.InferenceResult:
    """A model's detections on a photo, cached so that the slider and the filter do not run it again."""
    return open_model(path, written, key, _taxonomy).run(_image)


@dataclass(frozen=True, slots=True)
class DisplayFilters:
    """Which boxes are shown: from which score, of which classes (none: all), with ground truth or without."""

    min_score: float
    class_ids: frozenset[int]
    ground_truth: bool


def show_filters(taxonomy: Taxonomy, scorecards: Path, *, labelled: bool) -> DisplayFilters:
    """The lower half of the sidebar; ``labelled``: whether the photo has ground truth to show.

    The confidence begins at the score from which bins act on a detection, which the student's scorecard says.
    """
    cards, _ = read_scorecards(scorecards)
    score = bins_score(cards)
    min_score = st.slider(
        "Minimum confidence",
        0.0,
        1.0,
        inference.DEFAULT_CONFIDENCE if score is None else score,
        0.01,
        key="score",
        persist_state="session",
        help=f"It begins where bins act on a detection. Sorting scores: {describe_scores(cards)}."
        if cards
        else "There is no scorecard that says from which score on bins act on a detection.",
    )
    names = st.multiselect(
        "Show only",
        taxonomy.names,
        key="classes",
        persist_state="session",
        placeholder="every class",
        help=FILTER_HELP,
    )
    ground_truth = st.toggle(
        "Ground truth",
        key="truth",
        persist_state="session",
        disabled=not labelled,
        help="The boxes that a person drew, dashed.",
    )
    return DisplayFilters(min_score, frozenset(taxonomy.id_of[name] for name in names), ground_truth)


def show_photo_page(options: ViewerOptions, taxonomy: Taxonomy, key: str) -> None:
    """Show the page; ``key`` identifies the taxonomy in the caches."""
    with st.sidebar:
        source = choose_source(options)
        photo = pick_photo(source, options, taxonomy, key)
        st.divider()
        filters = show_filters(
            taxonomy,
            scorecards_of_bins(source, options),
            labelled=photo is not None and photo.labels is not None,
        )
    show_problems(source)
    if photo is None:
        st.info("Choose a photo on the left.", icon=":material/photo_camera:")
        return
    labels = photo.labels if filters.ground_truth else None
    headline = st.container()
    found: dict[str, Detections] = {}
    models = list_models(source, options)
    if source.deployment is not None and source.in_use is None:
        st.caption("Without the store there are no candidates' models: these are of the local build.")
    for column, model in zip(st.columns(max(len(models), 1), gap="medium"), models, strict=False):
        with column:
            between = " &nbsp; " if source.deployment is None else "  \n"  # a version takes a line of its own
            st.markdown(f"**{model.title}**{between}:small[:gray[{model.purpose}]]")
            try:
                if model.error is not None:
                    raise UserError(model.error)
                written = model.path.stat().st_mtime_ns if model.path.is_file() else 0
                result = run_model(model.path, written, key, photo.sha256, taxonomy, photo.image)
            except UserError as error:
                st.info(str(error), icon=":material/hourglass_empty:")
                continue
            found[model.title] = result.detections.above(filters.min_score)
            show_model_column(photo.image, result, filters, labels, taxonomy, len(models))
    with headline:
        if not models:
            st.info(
                "The flywheel has no model yet: the first turn publishes one, `make demo` brings one along.",
                icon=":material/hourglass_empty:",
            )
        show_comparison(found, labels, taxonomy)
    if not found:  # without any model the photo and its ground truth are still shown
        show_photo(photo.image, labels, None, taxonomy)
    st.caption(photo.caption)


def show_comparison(found: dict[str, Detections], labels: Labels | None, taxonomy: Taxonomy) -> None:
    """The stream of each item, whether the models agree on it, and what the colours mean."""
    titles = list(found)
    if titles:
        items = find_items(found, taxonomy)
        comparison = compare_streams(items, titles)
        callout, icon = CALLOUTS[comparison.kind]
        callout(comparison.sentence, icon=icon)
        if items and len(titles) > 1:
            with st.expander("Item by item", icon=":material/list:"):
                st.dataframe(item_rows(items, titles), hide_index=True)
    if labels is not None:
        st.markdown(f"**Ground truth:** {inference.describe_labels(labels, taxonomy)}")
    chips = " ".join(stream_chip(stream, taxonomy) for stream in taxonomy.streams)
    st.html(chips + (" <small>dashed, on white: ground truth</small>" if labels is not None else ""))


def show_model_column(
    image: NDArray[np.uint8],
    result: inference.InferenceResult,
    filters: DisplayFilters,
    labels: Labels | None,
    taxonomy: Taxonomy,
    models: int,
) -> None:
    """One of several ``models``: the photo with its boxes, their streams, its latency, and a table."""
    shown = inference.filter_detections(result.detections, filters.min_score, filters.class_ids)
    show_photo(image, labels, shown, taxonomy)
    streams = Counter(taxonomy.stream_of[int(class_id)] for class_id in shown.class_ids)
    chips = (
        " ".join(
            stream_chip(stream, taxonomy, f"{n} × " if n > 1 else "") for stream, n in streams.most_common()
        )
        or "<em>nothing</em>"
    )
    milliseconds = f"{result.milliseconds:.{int(result.milliseconds < 10)}f} ms"
    row = f'<span>{chips}</span><span style="white-space:nowrap">{milliseconds}</span>'
    st.html(f'<div style="display:flex;justify-content:space-between;gap:1rem">{row}</div>')
    if labels is not None:
        counts = sort_photo(labels, result.detections.above(filters.min_score), taxonomy)
        items, false = counts.items, counts.false_detections
        st.caption(
            f"Of {items} item{'s' * (items != 1)} {counts.right} to the right stream, {counts.wrong} to a "
            f"wrong one, {counts.missed} missed; {false or 'no'} false detection{'s' * (false != 1)}."
        )
    if rows := inference.detection_rows(shown, taxonomy):
        columns = DETECTION_COLUMNS if models <= MAX_WIDE_COLUMNS else NARROW_COLUMNS
        st.dataframe(rows, hide_index=True, column_config=columns)
    elif len(result.detections):
        best = float(result.detections.scores[0])
        st.caption(f"No detection to show at this confidence. The highest score of all is {best:.2f}.")
    else:
        st.caption("This model detects nothing in this photo.")


def show_photo(
    image: NDArray[np.uint8], labels: Labels | None, found: Detections | None, taxonomy: Taxonomy
) -> None:
    """The photo with its boxes; ground truth is drawn above a model's detections."""
    overlays = inference.label_overlays(labels, taxonomy) if labels is not None else []
    overlays += inference.detection_overlays(found, taxonomy) if found is not None else []
    alt = "The photo with boxes: " + (", ".join(overlay.text for overlay in overlays) or "none")
    st.image(
        box_drawing.draw_boxes(image, overlays),
        width="stretch" if found is not None else 640,
        output_format="JPEG",
        alt=alt,
    )


def stream_chip(stream: str, taxonomy: Taxonomy, before: str = "") -> str:
    """A stream's name on its colour, as HTML."""
    colour = taxonomy.streams[stream]
    style = (
        f"background:{colour};color:{box_drawing.text_colour(colour)};"
        "border-radius:.4rem;padding:.1rem .5rem;font-size:.875rem"
    )
    return f'<span style="{style}">{html.escape(before + stream)}</span>'
