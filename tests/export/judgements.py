"""Judgements whose outcomes are given, for tests of what follows from them."""

from datetime import UTC, datetime, timedelta

from evaluation.gate import Finding, GateParams, Verdict
from evaluation.gate.verdict import Outcome
from export import Candidate, Judgement
from export.judgement import ModelJudgement
from trashnet.models import Role
from trashnet.store import ObjectStore

FIRST = datetime(2026, 11, 26, 12, tzinfo=UTC)
FRAMES = 40  # of the gate set that they are about


def record_judgement(
    store: ObjectStore, candidate: Candidate, hours: int, *, wanted: int = 100, **outcomes: Outcome
) -> Judgement:
    """Write a judgement with an outcome for each role, made so many hours after :data:`FIRST`.

    What is held would be decided by ``wanted`` frames more.
    """
    models: dict[Role, ModelJudgement] = {}
    for role, outcome in outcomes.items():
        finding = Finding(
            test="utility",
            against="champion",
            name="sorting utility per item",
            outcome=outcome,
            estimate=0.0,
            limit=-0.02,
            frames_needed=FRAMES + wanted if outcome == "holds" else None,
            sentence=f"The {role} {outcome}.",
        )
        verdict = Verdict(
            outcome=outcome,
            findings=(finding,),
            slices={},
            watch={},
            frames=FRAMES,
            groups=FRAMES,
            items=3 * FRAMES,
            params=GateParams(),
        )
        models[role] = ModelJudgement(champion=None, best=None, verdict=verdict)  # type: ignore[index]
    at = FIRST + timedelta(hours=hours)
    judgement = Judgement(
        challenger=candidate.version, at=at, gate_set="gate-00002", digest="d", frames={}, models=models
    )
    store.put(judgement.key, judgement.model_dump_json().encode())
    return judgement
