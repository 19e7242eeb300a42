"""What is known of a deployment at one moment."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ServerStatus:
    """One server: ``state`` in a word or two, ``ok`` whether that is as it should be."""

    name: str
    url: str
    ok: bool
    state: str


@dataclass
class Status:
    """What was seen. ``facts`` maps a section to what is known of it, or to ``{"unknown": why}``."""

    at: str
    servers: list[ServerStatus]
    facts: dict[str, dict[str, Any]]
    degraded: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that should be up is up."""
        return all(server.ok for server in self.servers)

    def as_json(self) -> str:
        """For programs."""
        return json.dumps(asdict(self) | {"ok": self.ok}, indent=2, default=str)
