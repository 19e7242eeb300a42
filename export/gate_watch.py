"""What monitoring asks of the gate again and again, at the cost of a few small objects.

A look reads the pointers and manifests, a few KB each, and lists the newest candidate's judgements. These are
larger and never change: each is read once, and those of earlier candidates only when there is a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from evaluation.gate.verdict import Outcome
from export.champions import load_champion
from export.judgement import Judgement, judgement_keys, read_judgement, wanted_frames
from export.newest import load_newest_candidate
from trashnet.models import MODEL_OF_ROLE, ROLES, Role
from trashnet.store import ObjectStore

MOST_IN_A_ROW = 10  # candidates that are looked back at


@dataclass(frozen=True)
class GateState:
    """Where the gate stands with the newest candidate, and how old the models in use are.

    ``outcomes``: of its newest judgement; empty if there is none. ``waiting_since``: when it was published,
    if the gate has yet to judge it. ``held_since``: likewise for each role that is held, unless a person took
    its model all the same. ``blocked_in_a_row``: how many candidates were blocked in each role, counted back
    from the last one that was judged. ``frames_wanted``: how many exploration frames more would decide.
    ``champions``: when the model in use in each role was published.
    """

    outcomes: Mapping[Role, Outcome]
    waiting_since: datetime | None
    held_since: Mapping[Role, datetime]
    blocked_in_a_row: Mapping[Role, int]
    frames_wanted: int
    champions: Mapping[Role, datetime]


class GateWatch:
    """Looks at the gate of one store, in one thread at a time."""

    def __init__(self, store: ObjectStore) -> None:
        """Nothing is read yet."""
        self._store = store
        self._last: Judgement | None = None
        self._last_key, self._in_a_row = "", dict.fromkeys(ROLES, 0)
        self._outcomes: dict[str, Mapping[Role, Outcome]] = {}  # by the judgement's key

    def look(self) -> GateState:
        """The state now. Raises :class:`UserError` if the store is down, or what it holds is damaged."""
        newest = load_newest_candidate(self._store)
        champions = {role: load_champion(self._store, role) for role in ROLES}
        in_use = {role: one.published_at for role, one in champions.items() if one is not None}
        if newest is None:
            return GateState({}, None, {}, dict.fromkeys(ROLES, 0), 0, in_use)
        keys = judgement_keys(self._store, newest.version)
        if keys and keys[-1] != self._last_key:
            self._last = read_judgement(self._store, keys[-1])
            self._in_a_row = self._count_blocked()
            self._last_key = keys[-1]
        last = self._last if keys else None
        decided = {role for role, one in champions.items() if one and one.version == newest.version}
        outcomes = {role: one.verdict.outcome for role, one in last.models.items()} if last else {}
        undecided = {role for role in ROLES if MODEL_OF_ROLE[role].file in newest.files} - decided
        held = {role for role, outcome in outcomes.items() if outcome == "holds"} & undecided
        return GateState(
            outcomes=outcomes,
            waiting_since=newest.published_at if last is None and undecided else None,
            held_since=dict.fromkeys(held, newest.published_at),
            blocked_in_a_row=self._in_a_row,
            frames_wanted=wanted_frames(last, decided) if last else 0,
            champions=in_use,
        )

    def _count_blocked(self) -> dict[Role, int]:
        """Per role, how many candidates the gate blocked in a row, by the newest judgement of each."""
        newest_of = {key.split("/")[1]: key for key in judgement_keys(self._store)}  # the last one stays
        counts, open_roles = dict.fromkeys(ROLES, 0), set(ROLES)
        for key in sorted(newest_of.values(), key=_moment, reverse=True)[:MOST_IN_A_ROW]:
            if not open_roles:
                break
            for role, outcome in self._read_outcomes(key).items():
                if role in open_roles and outcome == "blocks":
                    counts[role] += 1
                else:
                    open_roles.discard(role)
        return counts

    def _read_outcomes(self, key: str) -> Mapping[Role, Outcome]:
        if key not in self._outcomes:
            judgement = read_judgement(self._store, key)
            self._outcomes[key] = {role: one.verdict.outcome for role, one in judgement.models.items()}
        return self._outcomes[key]


def _moment(key: str) -> str:
    return key.rpartition("/")[2]
