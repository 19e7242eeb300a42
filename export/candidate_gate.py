"""Judges a candidate: its files against the champions', on the gate set, in one run. What passes is used."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dataset import GateSet, Log
from evaluation import ComparedModel, Comparison, EvaluationParams, GroundTruth, compare_models
from evaluation.comparison import OF_CHAMPION
from evaluation.gate import Check, GateParams
from export.candidates import Candidate, download_model
from export.champions import load_best_champion, load_champion, promote
from export.credit import SliceCredit, credit_labels
from export.edgetpu import check_edgetpu
from export.judgement import Judgement, ModelJudgement
from export.judgement_page import judgement_page
from trashnet.detectors import open_detector
from trashnet.errors import UserError
from trashnet.models import MODEL_OF_ROLE, ROLES, SSD_FLOAT, SSD_INT8, Role
from trashnet.store import ObjectStore
from trashnet.taxonomy import Taxonomy


@dataclass(frozen=True)
class GateCriteria:
    """What a candidate is judged by: the frames, the classes, what errors cost, and what must be shown.

    ``models``: the folder that models are downloaded to. ``log``: the dataset log, which tells whose labels
    are new; without it no credit is given.
    """

    gate_set: GateSet
    taxonomy: Taxonomy
    params: EvaluationParams
    gate: GateParams
    seed: int
    models: Path
    log: Log | None = None


def sort_score_of(scorecard: Mapping[str, Any]) -> float | None:
    """The score from which bins act on a model's detections, as its scorecard says; ``None`` if none does."""
    score = scorecard.get("sorting", {}).get("score")
    return None if score is None else float(score)


def judge_candidate(store: ObjectStore, candidate: Candidate, criteria: GateCriteria) -> Judgement:
    """Judge a candidate's models against the champions, write the judgement, and promote what passes.

    Raises :class:`UserError` if a file is missing or damaged.
    """
    rivals = {role: (load_champion(store, role), load_best_champion(store, role)) for role in ROLES}
    judgement, comparisons = _judge(store, candidate, rivals, criteria)
    _write(store, judgement, comparisons, criteria.log)
    for role, one in judgement.models.items():
        if one.verdict.outcome == "passes":
            promote(store, candidate, role, _reason(one), is_best=_is_best(one))
    return judgement


def compare_candidates(
    store: ObjectStore, challenger: Candidate, champion: Candidate, criteria: GateCriteria
) -> Judgement:
    """What the gate would say if this champion were in use; nothing is written or promoted.

    Raises :class:`UserError` if a file is missing or damaged.
    """
    return _judge(store, challenger, dict.fromkeys(ROLES, (champion, None)), criteria)[0]


def _judge(
    store: ObjectStore,
    candidate: Candidate,
    rivals: Mapping[Role, tuple[Candidate | None, Candidate | None]],
    criteria: GateCriteria,
) -> tuple[Judgement, dict[Role, Comparison]]:
    comparisons, models = dict[Role, Comparison](), dict[Role, ModelJudgement]()
    for role in ROLES:
        file = MODEL_OF_ROLE[role].file
        if file not in candidate.files:
            continue
        champion, best = (one if one and file in one.files else None for one in rivals[role])
        files = _Files(store, criteria, role)
        is_other = best is not None and champion is not None and best.version != champion.version
        comparisons[role] = compare_models(
            files.compared_model(candidate),
            files.compared_model(champion) if champion else None,
            files.compared_model(best) if best and is_other else None,
            criteria.gate_set.frames,
            criteria.taxonomy,
            criteria.params,
            criteria.gate,
            criteria.seed,
            files.checks(candidate, champion),
        )
        credit, no_credit = _credit(comparisons[role], candidate, champion, criteria.log)
        models[role] = ModelJudgement(
            champion=champion.version if champion else None,
            best=best.version if best else None,
            verdict=comparisons[role].verdict,
            credit=credit,
            no_credit=no_credit,
        )
    judgement = Judgement(
        challenger=candidate.version,
        at=datetime.now(UTC),
        gate_set=criteria.gate_set.version,
        digest=GroundTruth.from_frames(criteria.gate_set.frames).digest(),
        frames=dict(Counter(criteria.gate_set.origins)),
        models=models,
    )
    return judgement, comparisons


def _credit(
    comparison: Comparison, candidate: Candidate, champion: Candidate | None, log: Log | None
) -> tuple[tuple[SliceCredit, ...], str | None]:
    """Whose labels are new in each slice, or why nobody can tell: a judgement does not depend on it."""
    if log is None:
        return (), None
    try:
        return credit_labels(comparison.changes, log, candidate, champion), None
    except UserError as error:
        return (), f"Whose labels are new is not known: {error}"


class _Files:
    """The files of candidates in one role."""

    def __init__(self, store: ObjectStore, criteria: GateCriteria, role: Role) -> None:
        self._store, self._criteria, self._model = store, criteria, MODEL_OF_ROLE[role]

    def compared_model(self, candidate: Candidate) -> ComparedModel:
        """The model with the score that was chosen for it when it was trained."""
        path = self._download(candidate)
        score = sort_score_of(self._scorecard(candidate, self._model.name))
        return ComparedModel(
            candidate.version,
            open_detector(path, self._criteria.taxonomy),
            score if score is not None else self._criteria.params.fallback_score,
        )

    def checks(self, candidate: Candidate, champion: Candidate | None) -> list[Check]:
        """The limits that do not depend on frames: size, and for the student the EdgeTPU and int8."""
        name, checks = self._model.file, list[Check]()
        if champion is not None:
            ratio = candidate.files[name].bytes / champion.files[name].bytes
            limit = self._criteria.gate.max_size_ratio
            checks.append(
                Check(name="Size", value=round(ratio, 3), limit=limit, bound="at most", unit=OF_CHAMPION)
            )
        if self._model is SSD_INT8:
            failures = check_edgetpu(self._download(candidate)).failures
            what = "Broken conditions of the EdgeTPU"
            checks.append(Check(name=what, value=len(failures), limit=0, bound="at most"))
            checks.append(self._quantisation(candidate))
        return checks

    def _quantisation(self, candidate: Candidate) -> Check:
        """AP points that int8 loses to float, on the test split of the training."""
        cards = [self._scorecard(candidate, model.name) for model in (SSD_FLOAT, SSD_INT8)]
        aps = [card.get("coco", {}).get("ap") for card in cards]
        lost = None if None in aps else round(100 * (aps[0] - aps[1]), 3)
        limit = self._criteria.params.quantisation_gate
        return Check(name="AP that int8 loses", value=lost, limit=limit, bound="at most", unit="points")

    def _download(self, candidate: Candidate) -> Path:
        return download_model(self._store, candidate, self._model.file, self._criteria.models)

    def _scorecard(self, candidate: Candidate, model: str) -> dict[str, Any]:
        """A scorecard that the candidate brought, empty if it has none, as the demo's first student."""
        name = f"scorecards/{model}.json"
        if name not in candidate.files:
            return {}
        path = download_model(self._store, candidate, name, self._criteria.models)
        card: dict[str, Any] = json.loads(path.read_bytes())
        return card


def _write(
    store: ObjectStore, judgement: Judgement, comparisons: dict[Role, Comparison], log: Log | None
) -> None:
    """The page first: a judgement that is there has one."""
    page = judgement_page(judgement, comparisons, log)
    store.put(judgement.page_key, page.encode(), "text/html; charset=utf-8")
    store.put(judgement.key, judgement.model_dump_json(indent=2).encode(), "application/json")


def _reason(judged: ModelJudgement) -> str:
    if judged.champion is None:
        return "it reaches the minima of a first champion"
    return "; ".join(judged.verdict.reasons)


def _is_best(judged: ModelJudgement) -> bool:
    """Whether it sorts no worse than the best champion so far, on the same frames."""
    rival = "best champion" if judged.best not in (None, judged.champion) else "champion"
    gains = [
        finding.estimate
        for finding in judged.verdict.findings
        if finding.test == "utility" and finding.against == rival
    ]
    return all(gain is None or gain >= 0 for gain in gains)
