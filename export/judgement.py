"""Judgements: what the gate said of candidates, kept beside them in the store.

A judgement is written to ``models/<version>/judgements/<moment>.json``, with a page for people beside it, and
is never changed; the newest one counts. It names the gate set and the digest of its frames and labels: two
judgements that differ there say nothing about each other. :mod:`export.candidate_gate` makes them.
"""

import re
from collections.abc import Callable, Collection
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.gate import Verdict
from evaluation.gate.verdict import Outcome, worst
from export.candidates import NAME, PREFIX, DamagedCandidate, Version, candidate_key
from export.champions import load_champion
from export.credit import SliceCredit, credit_markdown
from export.newest import load_newest_candidate
from trashnet.due import Due
from trashnet.models import MODEL_OF_ROLE, ROLES, Role
from trashnet.store import ObjectStore

FOLDER = "judgements"
MAX_JUDGEMENT_BYTES = 8 << 20
NOT_CREDITED = "Nothing is known: it was judged without the dataset log. `trashnet gate` judges it anew."
JUDGEMENT_KEY = re.compile(rf"{PREFIX}/{NAME}/{FOLDER}/{NAME}\.json")


class ModelJudgement(BaseModel):
    """One model's verdict, and the candidates that it was compared with (``None``: there was none).

    ``credit``: every slice before and after, with the labels that are new there; empty in old
    judgements, and where the dataset log lacks turns that the candidate was trained on (then ``no_credit``
    says so).
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    champion: Version | None
    best: Version | None
    verdict: Verdict
    credit: tuple[SliceCredit, ...] = ()
    no_credit: str | None = None


class Judgement(BaseModel):
    """What the gate said of a candidate: of each of its models, on which frames, and when.

    ``frames``: how many frames of each origin the gate set has.
    """

    model_config = ConfigDict(frozen=True, regex_engine="python-re")

    challenger: Version
    at: datetime
    gate_set: str
    digest: str
    frames: dict[str, int]
    models: dict[Role, ModelJudgement]

    @property
    def outcome(self) -> Outcome:
        """The worst of its models' outcomes."""
        return worst(one.verdict.outcome for one in self.models.values())

    @property
    def key(self) -> str:
        """Its key in the store."""
        return candidate_key(self.challenger, f"{FOLDER}/{self.at:%Y%m%dT%H%M%S.%f}.json")

    @property
    def page_key(self) -> str:
        """The key of its page."""
        return f"{self.key.removesuffix('.json')}.html"

    def markdown(self) -> str:
        """A page for people: each model's outcome and every finding as a sentence."""
        origins = (
            ", ".join(f"{count} {origin}" for origin, count in sorted(self.frames.items())) or "no frame"
        )
        lines = [
            f"# Candidate {self.challenger}",
            "",
            f"Judged on gate set {self.gate_set} ({origins}), {self.at:%Y-%m-%d %H:%M} UTC.",
        ]
        for role, one in self.models.items():
            rival = f"against candidate {one.champion}" if one.champion else "the first of its role"
            lines += ["", f"## The gate {one.verdict.outcome} the {role} ({rival})", ""]
            lines += [f"- {finding.outcome}: {finding.sentence}" for finding in one.verdict.findings]
        return "\n".join([*lines, ""])

    def credit_markdown(self) -> str:
        """A page for people: what changed of each model, and whose labels are new there."""
        lines = [f"# Credit for candidate {self.challenger}", "", f"Measured on gate set {self.gate_set}."]
        for role, one in self.models.items():
            rival = f"against candidate {one.champion}" if one.champion else "the first of its role"
            lines += ["", f"## The {role} ({rival})", ""]
            lines += credit_markdown(one.credit) if one.credit else [one.no_credit or NOT_CREDITED]
        return "\n".join([*lines, ""])


def load_judgement(store: ObjectStore, version: str) -> Judgement | None:
    """The newest judgement of a candidate, ``None`` if it was never judged.

    Raises :class:`DamagedCandidate` if it is damaged.
    """
    keys = judgement_keys(store, version)
    return read_judgement(store, keys[-1]) if keys else None


def judgement_keys(store: ObjectStore, version: str | None = None) -> list[str]:
    """The keys of a candidate's judgements, oldest first; of all candidates', by candidate, without one."""
    prefix = candidate_key(version, f"{FOLDER}/") if version else f"{PREFIX}/"
    return sorted(stored.key for stored in store.list(prefix) if JUDGEMENT_KEY.fullmatch(stored.key))


def read_judgement(store: ObjectStore, key: str) -> Judgement:
    """The judgement with this key. Raises :class:`DamagedCandidate` if it is damaged."""
    try:
        return Judgement.model_validate_json(store.get(key, MAX_JUDGEMENT_BYTES))
    except ValidationError as error:
        raise DamagedCandidate(
            f"{store}: {key} is not a judgement: {error}; remove it, and `trashnet gate {key.split('/')[1]}` "
            "judges anew"
        ) from None


def load_judgement_page(store: ObjectStore, judgement: Judgement) -> bytes:
    """The page for people beside a judgement, HTML.

    Raises :class:`trashnet.store.NoSuchObject` if somebody removed it.
    """
    return store.get(judgement.page_key)


def judgement_due(store: ObjectStore, gate_set: Callable[[], str]) -> Due:
    """Whether the newest candidate should be judged: it never was, or it was held on an older gate set.

    ``gate_set``: tells the name of the newest one; it is asked only where that decides.
    """
    newest = load_newest_candidate(store)
    if newest is None:
        return Due(False, "there is no candidate")
    last = load_judgement(store, newest.version)
    if last is None:
        has = [role for role in ROLES if MODEL_OF_ROLE[role].file in newest.files]
        champions = [load_champion(store, role) for role in has]
        if all(champion is not None and champion.version == newest.version for champion in champions):
            return Due(False, f"candidate {newest.version} is in use already, by a person's decision")
        return Due(True, f"candidate {newest.version} was never judged")
    if last.outcome == "holds" and last.gate_set != (name := gate_set()):
        return Due(True, f"candidate {newest.version} was held on {last.gate_set}; now there is {name}")
    return Due(False, f"the gate's word on candidate {newest.version} is: {last.outcome}")


def frames_wanted(store: ObjectStore) -> int:
    """How many exploration frames more would decide what is held of the newest candidate; 0 for none."""
    newest = load_newest_candidate(store)
    last = load_judgement(store, newest.version) if newest is not None else None
    if last is None:
        return 0
    champions = {role: load_champion(store, role) for role in last.models}
    return wanted_frames(
        last, {role for role, one in champions.items() if one and one.version == last.challenger}
    )


def wanted_frames(judgement: Judgement, in_use: Collection[Role]) -> int:
    """How many exploration frames more would decide what is held, but for models that are ``in_use`` already.

    A person decided about those: no frame changes that.
    """
    waiting = [one.verdict for role, one in judgement.models.items() if role not in in_use]
    return max((_more_frames(verdict) for verdict in waiting), default=0)


def _more_frames(verdict: Verdict) -> int:
    if verdict.outcome != "holds":
        return 0
    return verdict.more_frames or max(verdict.params.min_groups - verdict.groups, 0)
