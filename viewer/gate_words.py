"""What the page "Gate" says: champions and why they are in use, verdicts, and rows of tables."""

import re
from collections.abc import Sequence
from datetime import datetime

from evaluation.gate import SliceResult, Verdict
from evaluation.gate.verdict import Outcome
from export import Candidate, ChampionChange, Judgement
from trashnet.models import Role

BADGES: dict[Outcome, str] = {"passes": "green", "holds": "orange", "blocks": "red"}
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>$~:-])")
SLICE_NAMES = {"class": "class", "stream": "stream", "tail": "rare classes of stream", "bin": "bin"}


def plain(text: str) -> str:
    r"""Text that Markdown shows as it stands.

    >>> plain("a_b [c] $5")
    'a\\_b \\[c\\] \\$5'
    """
    return SPECIAL.sub(r"\\\1", text)


def describe_champion(role: Role, champion: Candidate | None, change: ChampionChange | None) -> str:
    """Why this model is in use, in Markdown."""
    if champion is None:
        return f"No {role} is in use yet: a first one must reach the gate's minima, or a person decides."
    trained = f"Trained on {plain(champion.dataset)}"
    if change is None:
        return f"{trained}; in use since before there was a gate, and nobody changed it."
    how = {
        "passed": "because it passed the gate",
        "override": f"because {plain(change.by)} overrode the gate",
        "rollback": f"because {plain(change.by)} rolled back",
    }[change.decision]
    before = f", instead of {plain(change.previous)}" if change.previous else ""
    return f"{trained}; in use since {moment(change.at)} {how}{before}. Reason: {plain(change.reason)}"


def change_rows(changes: Sequence[ChampionChange]) -> list[dict[str, str]]:
    """The changes of champions as rows of a table, the latest first."""
    return [
        {
            "When": moment(change.at),
            "Model": change.role,
            "In use from then on": change.version,
            "Before": change.previous or "none",
            "How": {"passed": "passed the gate"}.get(change.decision, change.decision),
            "By": change.by,
            "Reason": change.reason,
        }
        for change in reversed(changes)
    ]


def describe_judgement(judgement: Judgement, verdict: Verdict) -> str:
    """When and on which frames, and how many more would decide about this model, in Markdown."""
    counts = sorted(judgement.frames.items())
    origins = ", ".join(f"{count:,} {plain(origin)}" for origin, count in counts)
    frames = f"{sum(judgement.frames.values()):,} frames ({origins})" if counts else "no frame"
    said = f"Judged on {moment(judgement.at)} on gate set {plain(judgement.gate_set)}: {frames}."
    if verdict.more_frames:
        said += f" About {verdict.more_frames:,} exploration frames more would decide what is held."
    return said


def headline(role: Role, verdict: Verdict, champion: str | None) -> str:
    """The outcome for one model, in Markdown."""
    against = f"against candidate {plain(champion)}" if champion else "the first of its role"
    deciding = sum(finding.outcome == verdict.outcome for finding in verdict.findings)
    counted = f"{deciding} of {len(verdict.findings)} findings {'say' if deciding != 1 else 'says'} so"
    if verdict.outcome == "passes":
        counted = "all findings say so"
    return (
        f"**The gate {verdict.outcome} the {role}** ({against}): {counted}. {verdict.items:,} items in "
        f"{verdict.frames:,} frames of {verdict.groups:,} groups."
    )


def finding_lines(verdict: Verdict) -> list[str]:
    """Every finding as a sentence with its outcome, in Markdown; those that decided come first."""
    order = {"blocks": 0, "holds": 1, "passes": 2}
    findings = sorted(verdict.findings, key=lambda finding: order[finding.outcome])
    return [
        f":{BADGES[finding.outcome]}-badge[{finding.outcome}] {plain(finding.sentence)}"
        for finding in findings
    ]


def slice_rows(slices: Sequence[SliceResult]) -> list[dict[str, str | int | float | None]]:
    """Slices as rows of a table, in their order."""
    return [
        {
            "Slice": slice_name(result.kind, result.name),
            "Items": result.boxes,
            "Groups": result.groups,
            "Points more right": round(100 * result.gain, 1),
            "p of a loss": None if result.p is None else round(result.p, 4),
            "Not tested because": result.watched,
        }
        for result in slices
    ]


def slice_name(kind: str, name: str) -> str:
    """A slice in words.

    >>> slice_name("tail", "recycling")
    'rare classes of stream recycling'
    """
    return f"{SLICE_NAMES[kind]} {name}"


def moment(at: datetime) -> str:
    """A moment as people read it, such as ``2026-11-27 08:30 UTC``."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
