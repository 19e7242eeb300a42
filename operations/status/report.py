"""What is known about a deployment at one moment."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_REASONS = 2  # of a verdict; its page has all


def few_reasons(reasons: Sequence[str]) -> str:
    """The first sentences of a verdict, and how many more there are.

    >>> few_reasons(["It is worse.", "Class can got worse.", "Bin 1 got worse."])
    'It is worse. Class can got worse. And 1 more.'
    """
    more = len(reasons) - MAX_REASONS
    return " ".join([*reasons[:MAX_REASONS], *([f"And {more} more."] if more > 0 else [])])


@dataclass(frozen=True)
class ServerStatus:
    """One server. ``state`` describes it in a few words; ``ok`` is whether it works as it should."""

    name: str
    url: str
    ok: bool
    state: str


@dataclass
class Status:
    """The state at the time ``at`` (ISO, UTC).

    ``facts`` maps each section to what is known about it, or to ``{"unknown": reason}``.
    """

    at: str
    servers: list[ServerStatus]
    facts: dict[str, dict[str, Any]]
    degraded: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that should be up is up."""
        return all(server.ok for server in self.servers)

    def as_json(self) -> str:
        """The status as JSON, for programs."""
        return json.dumps(asdict(self) | {"ok": self.ok}, indent=2, default=str)
