"""Where the pages take frames and models from: the flywheel if there is one here, or the local build."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import streamlit as st

from export import Candidate
from trashnet.errors import UserError
from trashnet.models import MODEL_OF_ROLE, MODELS, ROLES
from viewer.deployment import Deployment, ModelsInUse, find_deployment, read_models_in_use
from viewer.server import ViewerOptions

Kind = Literal["Flywheel", "Local build"]
REFRESH_SECONDS = 15  # how old what the page says of the store may be


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model that photos go through: its title, what it is, and its file; ``error``: why there is none."""

    title: str
    purpose: str
    path: Path
    error: str | None = None


@dataclass(frozen=True)
class Source:
    """What the pages show. ``problems``: a sentence for each thing that is not as it should be.

    ``deployment``, ``in_use``: ``None`` for the local build; ``in_use`` also where the store does not answer.
    """

    kind: Kind
    data: Path
    deployment: Deployment | None = None
    in_use: ModelsInUse | None = None
    problems: tuple[str, ...] = field(default=())


@st.cache_data(ttl=REFRESH_SECONDS, max_entries=4, show_spinner="Asking the flywheel's store")
def cached_models_in_use(environment: Path, _deployment: Deployment) -> ModelsInUse:
    """:func:`viewer.deployment.read_models_in_use`, not asked again at every click."""
    return read_models_in_use(_deployment)


def choose_source(options: ViewerOptions) -> Source:
    """The flywheel or the local build; the sidebar says which, and lets one choose where there are both."""
    try:
        deployment = find_deployment(options.environment)
    except UserError as error:
        return _local(options, problems=(f"The flywheel cannot be shown: {error}",))
    if deployment is None:
        return _local(options, "No flywheel here: `trashnet up` starts one. ")
    kinds: tuple[Kind, Kind] = ("Flywheel", "Local build")
    kind = st.segmented_control(
        "Show",
        kinds,
        default="Flywheel",
        required=True,
        key="show",
        persist_state="session",
        width="stretch",
        help="The flywheel: its own frames, champions and candidates. "
        f"The local build: {options.data} and {options.models}.",
    )
    if kind == "Local build":
        return _local(options)
    endpoint = f"{deployment.settings.s3_endpoint}/{deployment.settings.s3_bucket}"
    st.caption(f"{options.note or 'Object store'}: `{endpoint}`  \nClone: `{deployment.settings.clone}`")
    try:
        in_use = cached_models_in_use(options.environment, deployment)
    except UserError as error:
        return Source("Flywheel", deployment.data, deployment, None, (str(error),))
    return Source("Flywheel", deployment.data, deployment, in_use, in_use.problems)


def _local(options: ViewerOptions, before: str = "", problems: tuple[str, ...] = ()) -> Source:
    st.caption(f"{before}Shown is the local build: {options.data} and {options.models}.")
    return Source("Local build", options.data, problems=problems)


def show_problems(source: Source) -> None:
    """Say what is not as it should be, on the page itself."""
    for problem in source.problems:
        st.warning(problem, icon=":material/cloud_off:")


def list_models(source: Source, options: ViewerOptions) -> list[ShownModel]:
    """The models that a photo goes through.

    The flywheel's are the champion of each role, and the newest candidate's where that is another. While its
    store does not answer, they are those of the local build, and the page says so.
    """
    if source.deployment is None or source.in_use is None:
        return [ShownModel(model.title, model.purpose, options.models / model.file) for model in MODELS]
    shown = []
    for role in ROLES:
        file, champion, newest = MODEL_OF_ROLE[role].file, source.in_use.champions[role], source.in_use.newest
        if champion is not None:
            title = f"{role.capitalize()} · champion"
            shown.append(_fetch(source.deployment, champion, file, title))
        if newest is not None and file in newest.files and newest != champion:
            title = f"{role.capitalize()} · challenger"
            shown.append(_fetch(source.deployment, newest, file, title))
    return shown


def scorecards_of_bins(source: Source, options: ViewerOptions) -> Path:
    """The folder of the scorecards that say from which score on bins act: those of the student in use.

    It need not exist. Raises :class:`UserError` if they cannot be downloaded.
    """
    student = source.in_use.champions["student"] if source.in_use is not None else None
    if source.deployment is None or student is None:
        return options.scorecards
    return fetch_scorecards(student.version, source.deployment, student)


@st.cache_resource(max_entries=32, show_spinner="Downloading scorecards")
def fetch_scorecards(version: str, _deployment: Deployment, _candidate: Candidate) -> Path:
    """The folder of a candidate's scorecards: downloaded and checked once, not at every click."""
    return _deployment.scorecards(_candidate)


def _fetch(deployment: Deployment, candidate: Candidate, file: str, title: str) -> ShownModel:
    path = deployment.models / candidate.version / file
    try:
        return ShownModel(title, candidate.version, fetch_model(str(path), deployment, candidate, file))
    except UserError as error:
        return ShownModel(title, candidate.version, path, str(error))


@st.cache_resource(max_entries=32, show_spinner="Downloading the model")
def fetch_model(path: str, _deployment: Deployment, _candidate: Candidate, _file: str) -> Path:
    """The local path of a candidate's model: downloaded and checked once, not at every click."""
    return _deployment.download(_candidate, _file)
