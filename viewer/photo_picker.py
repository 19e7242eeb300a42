"""The upper half of the sidebar: which photo to look at, a frame of the dataset log or one that somebody
brings.
"""

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
from viewer.server import Options

LOG, UPLOAD = "Frames", "Your photo"
STORED, APART = "as stored", "most disagreement first"


@dataclass(frozen=True, slots=True)
class Photo:
    """What is looked at: its pixels, a name for them in the cache, a line of words, and what a person boxed
    on it, if anyone did.
    """

    image: NDArray[np.uint8]
    sha256: str
    words: str
    labels: Labels | None = None


# What is kept between clicks. An argument that begins with "_" is not hashed; the others stand for it.


@st.cache_resource(max_entries=4, show_spinner="Opening the dataset log")
def open_log(root: Path, turns: list[str], key: str, _taxonomy: Taxonomy) -> Log:
    """The log, opened anew when a turn is added or the taxonomy changes."""
    return Log(root, _taxonomy)


@st.cache_data(max_entries=64, show_spinner="Looking for frames")
def positions_with(
    root: Path, turns: list[str], split: Split, class_id: int | None, _frames: Frames
) -> NDArray[np.int64]:
    """Positions of the frames that show a class."""
    return selection.frames_with(_frames, class_id)


@st.cache_data(max_entries=4, show_spinner="Comparing the models' predictions")
def apart(paths: list[Path], written: list[int], turns: list[str], _frames: Frames) -> NDArray[np.float64]:
    """How far the models are apart on each frame."""
    images = [_frames[i].sha256 for i in range(len(_frames))]
    return selection.detection_dissimilarity(
        [Predictions.read(path, images) for path in paths], DEFAULT_CONFIDENCE
    )


def pick_photo(options: Options, taxonomy: Taxonomy, key: str) -> Photo | None:
    """The photo somebody picks here; ``None`` with plain words where there is none to show."""
    source = st.segmented_control(
        "Look at",
        [LOG, UPLOAD],
        default=LOG,
        required=True,
        key="source",
        persist_state="session",
        width="stretch",
    )
    try:
        return uploaded() if source == UPLOAD else frame_of_log(options, taxonomy, key)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None


def uploaded() -> Photo | None:
    """The photo somebody uploaded; kept while the other page is open.

    Raises :class:`UserError` for what is no picture.
    """

    def keep() -> None:
        file = st.session_state["upload"]
        st.session_state["photo"] = (file.name, file.getvalue()) if file else None

    st.file_uploader(
        "A photo",
        key="upload",
        on_change=keep,
        max_upload_size=MAX_BYTES // 2**20,
        help="It stays on this machine, in memory.",
    )
    if not st.session_state.get("photo"):
        return None
    name, data = st.session_state["photo"]
    image = read_photo(data, name)
    return Photo(
        image, hashlib.sha256(data).hexdigest(), f"{name} · {image.shape[1]} × {image.shape[0]} pixels"
    )


def frame_of_log(options: Options, taxonomy: Taxonomy, key: str) -> Photo | None:
    """The frame chosen by split, class, order and number. Raises :class:`UserError` if there is no log."""
    turns = turns_of(options.data)
    log = open_log(options.data, turns, key, taxonomy)
    split = st.segmented_control(
        "Split",
        SPLITS[::-1],
        default="test",
        required=True,
        key="split",
        persist_state="session",
        on_change=go_to,
        args=(1,),
        width="stretch",
    )
    counts = log.box_counts(split)
    present = [None, *(c.id for c in taxonomy.classes if counts[c.id - 1])]
    if st.session_state.get("class") not in present:
        st.session_state["class"] = None  # the class chosen on another split is not on this one
    class_id = st.selectbox(
        "Showing",
        present,
        format_func=lambda i: "any class" if i is None else f"{taxonomy.name_of[i]} ({counts[i - 1]})",
        key="class",
        persist_state="session",
        on_change=go_to,
        args=(1,),
    )
    order = st.selectbox(
        "Order", [STORED, APART], key="order", persist_state="session", on_change=go_to, args=(1,)
    )
    frames = log.frames(split)
    positions = positions_with(options.data, turns, split, class_id, frames)
    if not len(positions):
        st.info(f"No frame of the {split} split is labelled yet.")
        return None
    if order == APART:
        positions = by_disagreement(positions, options, turns, split, frames)
    number = stepper(len(positions))
    frame = frames[int(positions[number - 1])]
    size = f"{frame.width} × {frame.height} pixels"
    words = f"{frame.file_name} · {size} · {frame.split} split · frame {frame.sha256[:12]}"
    return Photo(frame.image(), frame.sha256, words, frame.labels)


def by_disagreement(
    positions: NDArray[np.int64], options: Options, turns: list[str], split: Split, frames: Frames
) -> NDArray[np.int64]:
    """The positions by how far the models are apart.

    Says so where that is not known, and leaves them as they are.
    """
    paths = [path for model in MODELS if (path := options.predictions / f"{model.name}.json").is_file()]
    if split != "test":
        st.warning("Predictions are kept for the test split only; shown as stored.")
    elif len(paths) < 2:
        words = f"It takes the predictions of two models, and {options.predictions} holds {len(paths)}"
        st.warning(f"{words}; `dvc repro` writes them. Shown as stored.")
    else:
        return selection.most_dissimilar_first(
            positions, apart(paths, [path.stat().st_mtime_ns for path in paths], turns, frames)
        )
    return positions


def stepper(count: int) -> int:
    """The number of a frame, 1 to ``count``, typed or stepped to."""
    st.session_state["number"] = min(st.session_state.get("number", 1), count)
    number = int(st.number_input(f"Frame, 1 to {count}", 1, count, key="number", persist_state="session"))
    with st.container(horizontal=True, wrap=False):
        st.button(
            "Previous",
            icon=":material/chevron_left:",
            disabled=number <= 1,
            on_click=go_to,
            args=(number - 1,),
            width="stretch",
        )
        st.button(
            "Next",
            icon=":material/chevron_right:",
            disabled=number >= count,
            on_click=go_to,
            args=(number + 1,),
            width="stretch",
        )
    return number


def go_to(number: int) -> None:
    """Show the frame of this number."""
    st.session_state["number"] = number
