"""The upper half of the sidebar: the choice of a photo, either a frame of the dataset log or an upload."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dataset import SPLITS, Frames, Labels, Log, Split, turns_of
from evaluation import Predictions
from trashnet.errors import UserError
from trashnet.models import MODELS
from trashnet.taxonomy import Taxonomy
from viewer import selection
from viewer.inference import DEFAULT_CONFIDENCE
from viewer.photos import MAX_BYTES, read_photo
from viewer.server import ViewerOptions
from viewer.sources import Source

LOG, UPLOAD = "Frames", "Your photo"
AS_STORED, BY_DISAGREEMENT = "as stored", "most disagreement first"


@dataclass(frozen=True, slots=True)
class Photo:
    """The chosen photo: RGB pixels, their key in the cache, a caption, and its ground truth if it has one."""

    image: NDArray[np.uint8]
    sha256: str
    caption: str
    labels: Labels | None = None


# Streamlit runs the script again after every click; these caches keep their values. It hashes all arguments
# but those that begin with "_".


@st.cache_resource(max_entries=4, show_spinner="Opening the dataset log")
def open_log(root: Path, turns: list[str], key: str, _taxonomy: Taxonomy) -> Log:
    """The dataset log, cached until a turn is added or the taxonomy changes."""
    return Log(root, _taxonomy)


@st.cache_data(max_entries=64, show_spinner="Searching frames")
def find_frames(
    root: Path, turns: list[str], split: Split, class_id: int | None, _frames: Frames
) -> NDArray[np.int64]:
    """Indices of the frames whose labels name a class."""
    return selection.frames_with(_frames, class_id)


@st.cache_data(max_entries=4, show_spinner="Comparing the models' predictions")
def compute_dissimilarity(
    paths: list[Path], written: list[int], turns: list[str], _frames: Frames
) -> NDArray[np.float64]:
    """The dissimilarity of the models' detections on each frame; see :mod:`viewer.selection`."""
    images = [_frames[i].sha256 for i in range(len(_frames))]
    return selection.detection_dissimilarity(
        [Predictions.read(path, images) for path in paths], DEFAULT_CONFIDENCE
    )


def pick_photo(source: Source, options: ViewerOptions, taxonomy: Taxonomy, key: str) -> Photo | None:
    """Return the chosen photo, or ``None`` after the page has shown why there is none."""
    origin = st.segmented_control(
        "Source",
        [LOG, UPLOAD],
        default=LOG,
        required=True,
        key="source",
        persist_state="session",
        width="stretch",
    )
    try:
        return pick_upload() if origin == UPLOAD else pick_frame(source, options, taxonomy, key)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None


def pick_upload() -> Photo | None:
    """The uploaded photo, kept while the other page is open.

    Raises :class:`UserError` if it is no picture.
    """

    def keep() -> None:
        file = st.session_state["upload"]
        st.session_state["photo"] = (file.name, file.getvalue()) if file else None

    st.file_uploader(
        "Photo",
        key="upload",
        on_change=keep,
        max_upload_size=MAX_BYTES // 2**20,
        help="The photo stays in this machine's memory.",
    )
    if not st.session_state.get("photo"):
        return None
    name, data = st.session_state["photo"]
    image = read_photo(data, name)
    return Photo(
        image, hashlib.sha256(data).hexdigest(), f"{name} · {image.shape[1]} × {image.shape[0]} pixels"
    )


def pick_frame(source: Source, options: ViewerOptions, taxonomy: Taxonomy, key: str) -> Photo | None:
    """The frame chosen by split, class, order and number. Raises :class:`UserError` if there is no log."""
    turns = turns_of(source.data)
    log = open_dataset(source, turns, key, taxonomy)
    split = st.segmented_control(
        "Split",
        SPLITS[::-1],
        default="test",
        required=True,
        key="split",
        persist_state="session",
        on_change=go_to_frame,
        args=(1,),
        width="stretch",
    )
    counts = log.box_counts(split)
    present = [None, *(c.id for c in taxonomy.classes if counts[c.id - 1])]
    if st.session_state.get("class") not in present:
        st.session_state["class"] = None  # this split has no box of the class chosen on another
    class_id = st.selectbox(
        "Class",
        present,
        format_func=lambda i: "any class" if i is None else f"{taxonomy.name_of[i]} ({counts[i - 1]})",
        key="class",
        persist_state="session",
        on_change=go_to_frame,
        args=(1,),
    )
    order = AS_STORED
    if source.deployment is None:  # frames of the flywheel are ordered by difference on the page "Gate"
        order = st.selectbox(
            "Order",
            [AS_STORED, BY_DISAGREEMENT],
            key="order",
            persist_state="session",
            on_change=go_to_frame,
            args=(1,),
        )
    frames = log.frames(split)
    indices = find_frames(source.data, turns, split, class_id, frames)
    if not len(indices):
        st.info(f"The {split} split has no labelled frame yet.")
        return None
    if order == BY_DISAGREEMENT:
        indices = order_by_dissimilarity(indices, options, turns, split, frames)
    number = pick_number(len(indices))
    frame = frames[int(indices[number - 1])]
    size = f"{frame.width} × {frame.height} pixels"
    caption = f"{frame.file_name} · {size} · {frame.split} split · frame {frame.sha256[:12]}"
    return Photo(frame.image(), frame.sha256, caption, frame.labels)


def open_dataset(source: Source, turns: list[str], key: str, taxonomy: Taxonomy) -> Log:
    """The dataset log of the source. Raises :class:`UserError` with the remedy if there is none."""
    if source.deployment is not None and not (source.data / "labels").is_dir():
        raise UserError(
            f"{source.data}: the flywheel's clone has no dataset log yet. `trashnet up` makes it, and `make "
            "demo` turns the flywheel once."
        )
    return open_log(source.data, turns, key, taxonomy)


def order_by_dissimilarity(
    indices: NDArray[np.int64], options: ViewerOptions, turns: list[str], split: Split, frames: Frames
) -> NDArray[np.int64]:
    """Sort the indices by the dissimilarity of the models' detections, the greatest first.

    If there are no predictions to compare, the page says so and the order stays.
    """
    paths = [path for model in MODELS if (path := options.predictions / f"{model.name}.json").is_file()]
    if split != "test":
        st.warning("Predictions are kept for the test split only; shown as stored.")
    elif len(paths) < 2:
        st.warning(
            f"This order needs the predictions of two models, and {options.predictions} holds {len(paths)}; "
            "`dvc repro` writes them. Shown as stored."
        )
    else:
        return selection.sort_by_dissimilarity(
            indices, compute_dissimilarity(paths, [path.stat().st_mtime_ns for path in paths], turns, frames)
        )
    return indices


def pick_number(count: int, key: str = "number") -> int:
    """The number of a frame, 1 to ``count``, typed or stepped to with the buttons; kept under ``key``."""
    st.session_state[key] = min(st.session_state.get(key, 1), count)
    number = int(st.number_input(f"Frame, 1 to {count}", 1, count, key=key, persist_state="session"))
    with st.container(horizontal=True, wrap=False):
        st.button(
            "Previous",
            icon=":material/chevron_left:",
            disabled=number <= 1,
            on_click=go_to_frame,
            args=(number - 1, key),
            width="stretch",
        )
        st.button(
            "Next",
            icon=":material/chevron_right:",
            disabled=number >= count,
            on_click=go_to_frame,
            args=(number + 1, key),
            width="stretch",
        )
    return number


def go_to_frame(number: int, key: str = "number") -> None:
    """Show the frame of this number."""
    st.session_state[key] = number
