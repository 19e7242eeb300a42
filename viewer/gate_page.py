"""The page "Gate": who is champion and why, what the gate said of a candidate, and frames that show it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from dataset import gate_versions
from evaluation import EvaluationParams
from evaluation.gate import GateParams, Verdict
from export import Judgement
from trashnet.errors import UserError
from trashnet.models import MODEL_OF_ROLE, ROLES, Role
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy
from viewer import gate_words
from viewer.deployment import Deployment, JudgedCandidate, ModelsInUse, read_judged_candidate
from viewer.gate_frames import Comparison, show_deciding_slices, show_frames
from viewer.server import ViewerOptions
from viewer.sources import REFRESH_SECONDS, choose_source, show_problems

CALLOUTS: dict[str, tuple[Callable[..., Any], str]] = {
    "passes": (st.success, ":material/check_circle:"),
    "holds": (st.warning, ":material/hourglass_top:"),
    "blocks": (st.error, ":material/block:"),
}
VERDICT, FRAMES, HISTORY = "Verdict", "Frames", "History"
SLICE_COLUMNS = {"Points more right": st.column_config.NumberColumn(format="%+.1f")}


@st.cache_data(ttl=REFRESH_SECONDS, max_entries=8, show_spinner="Reading the judgement")
def cached_judged_candidate(environment: Path, version: str, _deployment: Deployment) -> JudgedCandidate:
    """:func:`viewer.deployment.read_judged_candidate`, not asked again at every click."""
    return read_judged_candidate(_deployment, version)


def show_gate_page(options: ViewerOptions, taxonomy: Taxonomy, key: str) -> None:
    """Show the page; ``key`` identifies the taxonomy in the caches."""
    with st.sidebar:
        source = choose_source(options)
    show_problems(source)
    if source.deployment is None:
        st.info(
            "The gate compares candidates of the flywheel, and the local build has none. `trashnet up` "
            "starts a flywheel, `make demo` turns it once.",
            icon=":material/rule:",
        )
        return
    if source.in_use is None:
        versions = ", ".join(gate_versions(source.data)) or "none yet"
        st.markdown(f"What can be read without the store: the gate sets in {source.data} ({versions}).")
        return
    show_champions(source.in_use)
    try:
        show_candidate(source.deployment, source.in_use, options, taxonomy, key)
    except UserError as error:
        st.error(str(error), icon=":material/error:")


def show_champions(in_use: ModelsInUse) -> None:
    """Who is champion of each role, and why."""
    for column, role in zip(st.columns(len(ROLES), gap="medium", border=True), ROLES, strict=True):
        champion = in_use.champions[role]
        name = f"`{champion.version}`" if champion else "none yet"
        column.markdown(f"**{role.capitalize()} in use** &nbsp; {name}")
        column.caption(gate_words.describe_champion(role, champion, in_use.last_changes[role]))


def show_candidate(
    deployment: Deployment, in_use: ModelsInUse, options: ViewerOptions, taxonomy: Taxonomy, key: str
) -> None:
    """What the gate said of the chosen candidate. Raises :class:`UserError` if something cannot be read."""
    versions = in_use.versions()
    if not versions:
        st.info("There is no candidate yet: `make demo` makes one.", icon=":material/hourglass_empty:")
        return
    with st.sidebar:
        version = st.selectbox("Candidate", versions, key="gate_version", persist_state="session")
        judged = cached_judged_candidate(options.environment, version, deployment)
        roles = [role for role in ROLES if MODEL_OF_ROLE[role].file in judged.candidate.files]
        if st.session_state.get("gate_role") not in roles:
            st.session_state["gate_role"] = roles[-1] if roles else None
        role = st.segmented_control(
            "Model", roles, required=True, key="gate_role", persist_state="session", width="stretch"
        )
    section = st.segmented_control(
        "Section",
        [VERDICT, FRAMES, HISTORY],
        default=VERDICT,
        required=True,
        key="gate_section",
        persist_state="session",
        label_visibility="collapsed",
    )
    if section == HISTORY or role is None:
        show_history(in_use)
        return
    comparison = make_comparison(deployment, in_use, judged, role, options, taxonomy, key)
    if section == FRAMES:
        show_frames(comparison)
    else:
        show_verdict(in_use, judged, role, comparison)


def make_comparison(
    deployment: Deployment,
    in_use: ModelsInUse,
    judged: JudgedCandidate,
    role: Role,
    options: ViewerOptions,
    taxonomy: Taxonomy,
    key: str,
) -> Comparison:
    """The candidate's model beside the one that the gate compared it with, on that judgement's gate set."""
    params = load_params("evaluation", EvaluationParams, options.params)
    gate = load_params("gate", GateParams, options.params)
    judgement, champion = judged.judgement, in_use.champions[role]
    rival = champion.version if champion and champion.version != judged.candidate.version else None
    best, verdict = None, None
    if judgement is not None and (one := judgement.models.get(role)) is not None:
        rival, verdict, gate = one.champion, one.verdict, one.verdict.params
        best = one.best if one.best not in (None, one.champion) else None
    return Comparison(
        deployment=deployment,
        candidate=judged.candidate,
        role=role,
        rival=rival,
        best=best,
        verdict=verdict,
        gate_set=judgement.gate_set if judgement else None,
        digest=judgement.digest if judgement else None,
        class_boxes=gate.class_boxes,
        fallback_score=params.fallback_score,
        taxonomy=taxonomy,
        key=key,
    )


def show_verdict(in_use: ModelsInUse, judged: JudgedCandidate, role: Role, comparison: Comparison) -> None:
    """The outcome, every finding, and the slices that decided."""
    judgement, version = judged.judgement, judged.candidate.version
    if judgement is None or comparison.verdict is None:
        st.info(
            f"The gate has not judged the {role} of candidate {version} yet. `trashnet gate {version}` does; "
            "the flywheel does by itself after a training.",
            icon=":material/hourglass_empty:",
        )
        return
    verdict = comparison.verdict
    callout, icon = CALLOUTS[verdict.outcome]
    callout(gate_words.headline(role, verdict, comparison.rival), icon=icon)
    st.caption(gate_words.describe_judgement(judgement, verdict))
    show_overrule(in_use, judgement, role, verdict)
    st.markdown("\n".join(f"- {line}" for line in gate_words.finding_lines(verdict)))
    show_deciding_slices(comparison)
    for rival in verdict.slices:
        with st.expander(f"Every slice against the {rival}", icon=":material/table_rows:"):
            rows = gate_words.slice_rows([*verdict.slices[rival], *verdict.watch.get(rival, ())])
            st.dataframe(rows, hide_index=True, column_config=SLICE_COLUMNS, placeholder="–")


def show_overrule(in_use: ModelsInUse, judgement: Judgement, role: Role, verdict: Verdict) -> None:
    """Say it where the verdict and what is in use differ, because a person or a later candidate decided."""
    champion = in_use.champions[role]
    is_used = champion is not None and champion.version == judgement.challenger
    if is_used and verdict.outcome != "passes":
        st.caption(f"It is in use all the same: see why above. The gate's word stays: {verdict.outcome}.")
    elif not is_used and verdict.outcome == "passes" and champion is not None:
        st.caption(f"It is not in use now: candidate {gate_words.plain(champion.version)} is.")


def show_history(in_use: ModelsInUse) -> None:
    """Every change of a champion."""
    rows = gate_words.change_rows(in_use.changes)
    if rows:
        st.dataframe(rows, hide_index=True, column_config={"Reason": st.column_config.TextColumn(width=420)})
    else:
        st.info("No champion has changed yet.", icon=":material/history:")
