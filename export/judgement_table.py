"""What the gate said of two candidates, side by side, where that means something."""

from export.judgement import Judgement
from trashnet.errors import UserError


def require_same_frames(one: Judgement, other: Judgement) -> None:
    """Raise :class:`UserError` unless both were judged on the same frames with the same labels."""
    if one.digest == other.digest:
        return
    remedy = f"`trashnet gate {other.challenger} {one.challenger}` judges both on the newest gate set."
    if one.gate_set != other.gate_set:
        why = (
            f"candidate {one.challenger} was judged on gate set {one.gate_set}, candidate "
            f"{other.challenger} on {other.gate_set}: between them lies a step of its version"
        )
    else:
        why = (
            f"candidates {one.challenger} and {other.challenger} were both judged on gate set "
            f"{one.gate_set}, but frames left it or got other labels since (digests "
            f"{one.digest[:12]} and {other.digest[:12]})"
        )
    raise UserError(f"{why}, so the two judgements say nothing about each other. {remedy}")


def compare_judgements(one: Judgement, other: Judgement) -> str:
    """Every finding of both, by model, as Markdown.

    Raises :class:`UserError` if they were judged on other frames or labels.
    """
    require_same_frames(one, other)
    lines = [f"Both were judged on gate set {one.gate_set}, with the same labels."]
    for role in [role for role in one.models if role in other.models]:
        first, second = one.models[role], other.models[role]
        lines += ["", f"| {role} | {one.challenger} | {other.challenger} |", "|---|---|---|"]
        lines.append(f"| the gate | {first.verdict.outcome} | {second.verdict.outcome} |")
        lines.append(f"| against | {first.champion or 'minima'} | {second.champion or 'minima'} |")
        texts = [
            {(f.test, f.against, f.name): f"{f.outcome}: {f.sentence}" for f in judged.verdict.findings}
            for judged in (first, second)
        ]
        for key in dict.fromkeys([*texts[0], *texts[1]]):
            lines.append(f"| {key[2]} | {texts[0].get(key, '')} | {texts[1].get(key, '')} |")
        if first.champion != second.champion:
            lines += ["", f"The two {role}s were compared with different champions."]
    return "\n".join(lines)
