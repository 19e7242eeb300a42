"""The frames of a gate set with champion and challenger side by side, those where they differ first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import streamlit as st

from dataset import GateSet, Log, gate_versions, read_gate_set, turns_of
from evaluation.gate import Finding, Verdict
from evaluation.gate.slices import GateSlice
from export import Candidate, sort_score_of
from trashnet.models import MODEL_OF_ROLE, Role
from trashnet.taxonomy import Taxonomy
from viewer import gate_words
from viewer.compared_frames import ORDERS, ComparedFrames, GateFrameLabels, ModelOnFrames, Order, most_lost
from viewer.deployment import Deployment, require_candidate
from viewer.detection_job import DetectionJob, detections_file
from viewer.photo_page import show_photo, stream_chip
from viewer.photo_picker import go_to_frame, open_log, pick_number

EXAMPLES = 4  # frames of each slice that decided
EXAMPLES_A_ROW = 2
POLL_SECONDS = 0.3
ALL_ITEMS = "all items"
NUMBER = "gate_number"  # the state that holds the frame's number


@dataclass(frozen=True)
class Comparison:
    """What is compared: a candidate's model with the one that it wants to replace.

    ``rival``, ``best``: versions of the champion and of the best champion there was, ``None`` where there is
    no other one; ``verdict``, ``gate_set``, ``digest``: of the judgement, ``None`` before it.
    """

    deployment: Deployment
    candidate: Candidate
    role: Role
    rival: str | None
    best: str | None
    verdict: Verdict | None
    gate_set: str | None
    digest: str | None
    class_boxes: int
    fallback_score: float
    taxonomy: Taxonomy
    key: str


@st.cache_resource(max_entries=4, show_spinner="Reading the gate set")
def open_gate_set(
    root: Path, turns: list[str], version: str, key: str, _log: Log, _taxonomy: Taxonomy
) -> tuple[GateSet, GateFrameLabels]:
    """A version of the gate set with its labels, cached until a turn is added."""
    gate_set = read_gate_set(_log, version)
    return gate_set, GateFrameLabels.collect(gate_set.frames, _taxonomy)


@st.cache_resource(max_entries=16, show_spinner=False)
def detection_job(
    kept: Path,
    _deployment: Deployment,
    _candidate: Candidate,
    _file: str,
    _labels: GateFrameLabels,
    _taxonomy: Taxonomy,
) -> DetectionJob:
    """The job that makes the detections in ``kept``; begun once, whatever is clicked meanwhile."""
    fetch = partial(_deployment.download, _candidate, _file)
    return DetectionJob(fetch, _labels.frames, _taxonomy, kept)


@st.cache_resource(max_entries=8, show_spinner="Matching detections with items")
def match_model(
    kept: Path,
    sort_score: float,
    digest: str,
    _labels: GateFrameLabels,
    _job: DetectionJob,
    _taxonomy: Taxonomy,
) -> ModelOnFrames:
    """A finished job's detections, matched with the items of these labels (``digest``)."""
    if _job.predictions is None:
        raise ValueError("the job is not finished")
    return ModelOnFrames.match(_labels, _job.predictions, sort_score, _taxonomy)


def show_frames(comparison: Comparison) -> None:
    """Browse the frames. Raises :class:`UserError` if something cannot be read."""
    opened = open_frames(comparison)
    if opened is None:
        return
    gate_set, labels = opened
    rival = choose_rival(comparison)
    compared = compare(comparison, rival, labels)
    if compared is None:
        return
    slices = labels.slices(comparison.class_boxes)
    with st.sidebar:
        part = pick_slice(compared, slices)
        order: Order = st.selectbox(
            "Order",
            ORDERS,
            key="gate_order",
            persist_state="session",
            on_change=go_to_frame,
            args=(1, NUMBER),
        )
        positions = compared.order(order, part)
        number = pick_number(len(positions), NUMBER)
        show_truth = st.toggle(
            "Ground truth",
            True,
            key="gate_truth",
            persist_state="session",
            help="The boxes that a person drew, dashed.",
        )
    position = int(positions[number - 1])
    show_counts(comparison, compared, part, gate_set)
    show_row(comparison, compared, [position], rival, show_truth=show_truth)
    st.dataframe(compared.item_rows(position, comparison.taxonomy), hide_index=True)
    frame = labels.frames[position]
    st.caption(
        f"{gate_words.plain(frame.file_name)} · {frame.width} × {frame.height} pixels · "
        f"{gate_words.plain(frame.bin_id or 'of no bin')} · origin: {gate_set.origins[position]} · "
        f"frame {frame.sha256[:12]}"
    )


def show_deciding_slices(comparison: Comparison) -> None:
    """For each slice that decided, the frames that lose most of its items, and a way to all its frames."""
    findings = [f for f in comparison.verdict.findings if f.slice is not None] if comparison.verdict else []
    if not findings:
        return
    st.markdown("#### Slices that decided")
    opened = open_frames(comparison)
    if opened is None:
        return
    _, labels = opened
    slices = {(part.kind, part.name): part for part in labels.slices(comparison.class_boxes)}
    for finding in findings:
        rival = comparison.best if finding.against == "best champion" else comparison.rival
        compared = compare(comparison, rival, labels)
        if compared is None:
            return
        show_slice(comparison, compared, finding, slices, rival)


def show_slice(
    comparison: Comparison,
    compared: ComparedFrames,
    finding: Finding,
    slices: dict[tuple[str, str], GateSlice],
    rival: str | None,
) -> None:
    """One slice that decided: its sentence, its worst frames, and a button to all of them."""
    if finding.slice is None:
        return
    part = slices.get((finding.slice.kind, finding.slice.name))
    with st.container(border=True):
        st.markdown(f":red-badge[{finding.outcome}] {gate_words.plain(finding.sentence)}")
        if part is None:
            st.caption("Its frames have left the dataset since.")
            return
        worst = most_lost(compared, part, EXAMPLES)
        for begin in range(0, len(worst), EXAMPLES_A_ROW):
            show_row(comparison, compared, worst[begin : begin + EXAMPLES_A_ROW], rival, EXAMPLES_A_ROW)
        name = gate_words.slice_name(part.kind, part.name)
        st.button(
            f"All frames of {name}",
            icon=":material/photo_library:",
            key=f"all {finding.against} {name}",
            on_click=go_to_slice,
            args=(name,),
        )


def open_frames(comparison: Comparison) -> tuple[GateSet, GateFrameLabels] | None:
    """The judgement's gate set, or the newest; ``None`` after the page has said why there is none."""
    root = comparison.deployment.data
    versions = gate_versions(root)
    version = comparison.gate_set or (versions[-1] if versions else None)
    if version is None or version not in versions:
        wanted = f"Gate set {version}" if version else "A gate set"
        st.info(
            f"{wanted} is not in the clone's dataset ({root}). The first turn with a labelled test frame "
            "that was drawn at random makes one.",
            icon=":material/hourglass_empty:",
        )
        return None
    turns = turns_of(root)
    log = open_log(root, turns, comparison.key, comparison.taxonomy)
    opened = open_gate_set(root, turns, version, comparison.key, log, comparison.taxonomy)
    gate_set, labels = opened
    if not len(gate_set.frames):
        st.info(f"Gate set {version} has no frame.", icon=":material/hourglass_empty:")
        return None
    if comparison.digest not in (None, labels.truth.digest()):
        st.warning(
            f"Labels of gate set {version} have changed, or frames have left it, since the gate judged: what "
            "you see here may differ from its numbers.",
            icon=":material/edit_note:",
        )
    return opened


def choose_rival(comparison: Comparison) -> str | None:
    """The version that the candidate is compared with: the champion, or the best champion there was."""
    if comparison.best is None:
        return comparison.rival
    choices = {
        f"champion {comparison.rival}": comparison.rival,
        f"best champion {comparison.best}": comparison.best,
    }
    with st.sidebar:
        chosen = st.selectbox("Compared with", list(choices), key="gate_rival", persist_state="session")
    return choices[chosen]


def compare(comparison: Comparison, rival: str | None, labels: GateFrameLabels) -> ComparedFrames | None:
    """Both models on the frames, ``None`` after the page has said why not.

    Waits until both have seen all frames, and shows how far they are.
    """
    candidates = {"challenger": comparison.candidate}
    if rival is not None:
        candidates["champion"] = require_candidate(comparison.deployment.store(), rival)
    file, taxonomy = MODEL_OF_ROLE[comparison.role].file, comparison.taxonomy
    models: dict[str, ModelOnFrames] = {}
    for who, candidate in candidates.items():
        if file not in candidate.files:
            st.info(f"Candidate {candidate.version} has no {comparison.role}.")
            return None
        model_sha256 = candidate.files[file].sha256
        folder = comparison.deployment.detections
        kept = detections_file(folder, model_sha256, labels.truth.images, comparison.key)
        asked = (kept, comparison.deployment, candidate, file, labels, taxonomy)
        job = detection_job(*asked)
        wait_for(job, f"The {comparison.role} of candidate {candidate.version} detects")
        if job.error is not None:
            st.error(job.error, icon=":material/error:")
            st.button("Try again", key=f"again {who}", on_click=detection_job.clear, args=asked)
            return None
        score = sort_score(comparison, candidate)
        models[who] = match_model(kept, score, labels.truth.digest(), labels, job, taxonomy)
    return ComparedFrames(labels, models.get("champion"), models["challenger"])


def wait_for(job: DetectionJob, what: str) -> None:
    """Show how far a job is until it ends. A click meanwhile does not stop it."""
    if not job.is_running:
        return
    bar = st.progress(0.0, what)
    while not job.wait(POLL_SECONDS):
        left = job.seconds_left()
        eta = "" if left is None else f", about {left:.0f} s more"
        bar.progress(job.done / max(job.total, 1), f"{what}: {job.done:,} of {job.total:,} frames{eta}")
    bar.empty()


def sort_score(comparison: Comparison, candidate: Candidate) -> float:
    """The score from which a bin acts on a detection; the gate takes it from the same scorecard."""
    name = f"scorecards/{MODEL_OF_ROLE[comparison.role].name}.json"
    if name not in candidate.files:
        return comparison.fallback_score
    path = download_once(candidate.version, name, comparison.deployment, candidate)
    score = sort_score_of(json.loads(path.read_bytes()))
    return comparison.fallback_score if score is None else score


@st.cache_resource(max_entries=64, show_spinner=False)
def download_once(version: str, name: str, _deployment: Deployment, _candidate: Candidate) -> Path:
    """The local path of a candidate's file, checked once and not at every click."""
    return _deployment.download(_candidate, name)


def pick_slice(compared: ComparedFrames, slices: Sequence[GateSlice]) -> GateSlice | None:
    """A class, stream, tail or bin, ``None`` for all items; each with what is lost and won in it."""
    named = {gate_words.slice_name(part.kind, part.name): part for part in slices}
    if st.session_state.get("gate_slice") not in named:
        st.session_state["gate_slice"] = ALL_ITEMS

    def describe(name: str) -> str:
        return f"{name} ({_changes(compared, named.get(name))})"

    name = st.selectbox(
        "Items",
        [ALL_ITEMS, *named],
        format_func=describe,
        key="gate_slice",
        persist_state="session",
        on_change=go_to_frame,
        args=(1, NUMBER),
        help="Only frames with such an item; the order too counts only these.",
    )
    return named.get(name)


def _changes(compared: ComparedFrames, part: GateSlice | None) -> str:
    lost, won = int(compared.lost(part).sum()), int(compared.won(part).sum())
    items = int(compared.items(part).sum())
    if compared.rival is None:
        return f"{lost} of {items} not right"
    return f"{lost} lost, {won} won of {items}"


def show_counts(
    comparison: Comparison,
    compared: ComparedFrames,
    part: GateSlice | None,
    gate_set: GateSet,
) -> None:
    """What the challenger loses and wins, in numbers, and what the colours mean."""
    where = gate_words.slice_name(part.kind, part.name) if part else f"gate set {gate_set.version}"
    scores = f"{compared.challenger.sort_score:.2f}"
    if compared.rival is None:
        said = "There is no champion to compare with. In"
    else:
        said = "The challenger against the champion in"
        scores = f"{compared.rival.sort_score:.2f} (champion) and {scores} (challenger)"
    changes = _changes(compared, part)
    st.markdown(f"{said} {gate_words.plain(where)}: **{changes}**. Detections count from {scores} on.")
    st.html(
        " ".join(stream_chip(stream, comparison.taxonomy) for stream in comparison.taxonomy.streams)
        + " <small>dashed, on white: ground truth</small>"
    )


def show_row(
    comparison: Comparison,
    compared: ComparedFrames,
    positions: Sequence[int],
    rival: str | None,
    frames: int = 1,
    *,
    show_truth: bool = True,
) -> None:
    """Some frames in a row that has room for ``frames``, each as champion and challenger see it."""
    models = [("Challenger", comparison.candidate.version, compared.challenger)]
    if compared.rival is not None and rival is not None:
        models.insert(0, ("Champion", rival, compared.rival))
    columns = iter(st.columns(2 * frames, gap="medium" if frames == 1 else "small"))
    for position in positions:
        frame = compared.labels.frames[position]
        image, truth = frame.image(), frame.labels if show_truth else None
        on_frame = compared.labels.shared.item_frame == position
        for title, version, model in models:
            with next(columns):
                version = f" &nbsp; :small[:gray[{gate_words.plain(version)}]]" if frames == 1 else ""
                st.markdown(f"**{title}**{version}")
                show_photo(image, truth, model.detections(position), comparison.taxonomy)
                items, right, false = on_frame.sum(), model.right[on_frame].sum(), model.false[position]
                st.caption(
                    f"{right} of {items} item{'s' * (items != 1)} in the right stream; {false or 'no'} false "
                    f"detection{'s' * (false != 1)}"
                )


def go_to_slice(name: str) -> None:
    """Show the frames of this slice, the most differing first."""
    st.session_state.update(
        {"gate_section": "Frames", "gate_slice": name, NUMBER: 1, "gate_order": ORDERS[1]}
    )
