"""A photo or a frame through all three models, side by side."""

import html
from collections import Counter
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dataset import Labels
from trashnet import box_drawing
from trashnet.detectors import Detections
from trashnet.errors import UserError
from trashnet.models import MODELS
from trashnet.taxonomy import Taxonomy
from viewer import inference
from viewer.comparison import compare_streams, find_items, item_rows, sort_photo
from viewer.photo_picker import pick_photo
from viewer.server import Options

FILTER_HELP = "Only for display: the comparison counts every class."
CALLOUTS = {
    "agree": (st.success, ":material/check_circle:"),
    "partly": (st.warning, ":material/rule:"),
    "disagree": (st.warning, ":material/call_split:"),
    "nothing": (st.info, ":material/block:"),
}
COLUMNS = {
    "Stream": st.column_config.TextColumn(width=72),
    "Score": st.column_config.ProgressColumn(format="%.2f", min_value=0.0, max_value=1.0, width=85),
}


@st.cache_resource(max_entries=8, show_spinner="Opening the model")
def open_model(path: Path, written: int, key: str, _taxonomy: Taxonomy) -> inference.ModelRunner:
    """A model, opened anew when its file (``written``: its time stamp) or the taxonomy (``key``: its digest)
    changes.
    """
    return inference.ModelRunner(path, _taxonomy)


@st.cache_data(max_entries=256, show_spinner="Running the model")
def run_model(
    path: Path, written: int, key: str, sha256: str, _taxonomy: Taxonomy, _image: NDArray[np.uint8]
) -> inference.InferenceResult:
    """What a model finds on a photo: run once, so that the slider and the filter respond at once."""
    return open_model(path, written, key, _taxonomy).run(_image)


def photo_page(options: Options, taxonomy: Taxonomy, key: str) -> None:
    """The whole page; ``key`` stands for the taxonomy in the cache."""
    with st.sidebar:
        photo = pick_photo(options, taxonomy, key)
        st.divider()
        score = st.slider(
            "Confidence, at least",
            0.0,
            1.0,
            inference.DEFAULT_CONFIDENCE,
            0.05,
            key="score",
            persist_state="session",
        )
        names = st.multiselect(
            "Show only",
            taxonomy.names,
            key="classes",
            persist_state="session",
            placeholder="every class",
            help=FILTER_HELP,
        )
        labelled = photo is not None and photo.labels is not None
        truth = st.toggle(
            "Ground truth",
            key="truth",
            persist_state="session",
            disabled=not labelled,
            help="What a person boxed: dashed.",
        )
    if photo is None:
        st.info("Pick a photo on the left.", icon=":material/photo_camera:")
        return
    labels = photo.labels if truth else None
    class_ids = {taxonomy.id_of[name] for name in names}
    headline = st.container()
    found: dict[str, Detections] = {}
    for column, model in zip(st.columns(len(MODELS), gap="medium"), MODELS, strict=True):
        with column:
            st.markdown(f"**{model.title}** &nbsp; :small[:gray[{model.purpose}]]")
            path = options.models / model.file
            try:
                seen = run_model(
                    path,
                    path.stat().st_mtime_ns if path.is_file() else 0,
                    key,
                    photo.sha256,
                    taxonomy,
                    photo.image,
                )
            except UserError as error:
                st.info(str(error), icon=":material/hourglass_empty:")
                continue
            found[model.title] = seen.detections.above(score)
            model_column(photo.image, seen, score, class_ids, labels, taxonomy)
    with headline:
        show_comparison(found, labels, taxonomy)
    if not found:  # no model yet: the photo and what a person boxed on it are worth seeing all the same
        picture(photo.image, labels, None, taxonomy)
    st.caption(photo.words)


def show_comparison(found: dict[str, Detections], labels: Labels | None, taxonomy: Taxonomy) -> None:
    """Where the items would go, whether the models agree, and where they do not.

    Below it what the colours mean.
    """
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
    chips = " ".join(chip(stream, taxonomy) for stream in taxonomy.streams)
    st.html(chips + (" <small>dashed, on white: ground truth</small>" if labels is not None else ""))


def model_column(
    image: NDArray[np.uint8],
    seen: inference.InferenceResult,
    score: float,
    class_ids: set[int],
    labels: Labels | None,
    taxonomy: Taxonomy,
) -> None:
    """One model: the photo with its boxes, the streams it would use, its latency, and a table of what it
    found.
    """
    shown = inference.filter_detections(seen.detections, score, class_ids)
    picture(image, labels, shown, taxonomy)
    streams = Counter(taxonomy.stream_of[int(class_id)] for class_id in shown.class_ids)
    chips = (
        " ".join(chip(stream, taxonomy, f"{n} × " if n > 1 else "") for stream, n in streams.most_common())
        or "<em>nothing</em>"
    )
    milliseconds = f"{seen.milliseconds:.{int(seen.milliseconds < 10)}f} ms"
    row = f'<span>{chips}</span><span style="white-space:nowrap">{milliseconds}</span>'
    st.html(f'<div style="display:flex;justify-content:space-between;gap:1rem">{row}</div>')
    if labels is not None:
        judged = sort_photo(labels, seen.detections.above(score), taxonomy)
        words = f"Of {judged.items} item{'s' * (judged.items != 1)} {judged.right} to the right stream"
        words += f", {judged.wrong} to a wrong one, {judged.missed} missed"
        false = judged.false_detections
        st.caption(f"{words}; {false or 'no'} false detection{'s' * (false != 1)}.")
    if rows := inference.detection_rows(shown, taxonomy):
        st.dataframe(rows, hide_index=True, column_config=COLUMNS)
    elif len(seen.detections):
        st.caption(
            "Nothing to show at this confidence. The surest of everything scores "
            f"{float(seen.detections.scores[0]):.2f}."
        )
    else:
        st.caption("This model finds nothing at all here.")


def picture(
    image: NDArray[np.uint8], labels: Labels | None, found: Detections | None, taxonomy: Taxonomy
) -> None:
    """The photo with boxes: those of a person above those of a model."""
    marks = inference.label_marks(labels, taxonomy) if labels is not None else []
    marks += inference.detection_marks(found, taxonomy) if found is not None else []
    alt = "The photo with boxes: " + (", ".join(mark.text for mark in marks) or "none")
    st.image(
        box_drawing.draw(image, marks),
        width="stretch" if found is not None else 640,
        output_format="JPEG",
        alt=alt,
    )


def chip(stream: str, taxonomy: Taxonomy, before: str = "") -> str:
    """A stream's name on its colour, as HTML."""
    colour = taxonomy.streams[stream]
    style = (
        f"background:{colour};color:{box_drawing.text_colour(colour)};"
        "border-radius:.4rem;padding:.1rem .5rem;font-size:.875rem"
    )
    return f'<span style="{style}">{html.escape(before + stream)}</span>'
