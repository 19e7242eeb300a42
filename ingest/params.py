from datetime import UTC, date, datetime

from pydantic import Field

from ingest.ledger.ledger import FARTHEST
from trashnet.params import Params


class IngestParams(Params):
    """Section ``ingest`` of ``params.yaml``: what a frame may cost, and when it is not new."""

    max_bytes: int = Field(8 << 20, ge=1)
    max_sidecar_bytes: int = Field(64 << 10, ge=1)
    min_side: int = Field(16, ge=1)
    max_pixels: int = Field(50_000_000, ge=1)
    earliest: date = date(2020, 1, 1)
    clock_ahead_hours: float = Field(24, ge=0)
    incomplete_hours: float = Field(24, ge=0)
    threads: int = Field(16, ge=1)
    batch: int = Field(64, ge=1)
    decoders: int | None = Field(None, ge=1)
    decode_seconds: int = Field(10, ge=1)
    decode_wall_seconds: float = Field(60, gt=0)
    decode_memory_mb: int = Field(1024, ge=256)
    duplicate_distance: int = Field(2, ge=0, le=FARTHEST)
    duplicate_levels: int = Field(6, ge=0, le=255)

    @property
    def not_before(self) -> datetime:
        """The earliest time that a bin's clock may tell."""
        return datetime(self.earliest.year, self.earliest.month, self.earliest.day, tzinfo=UTC)


class TriageParams(Params):
    """Section ``triage`` of ``params.yaml``: what makes a frame worth a person's time, and how many there is time for."""

    budget: int = Field(200, ge=1)
    audit: float = Field(0.1, ge=0, le=1)
    floor: float = Field(0.1, ge=0, le=1)
    stand_by: float = Field(0.3, ge=0, le=1)
    iou: float = Field(0.5, gt=0, le=1)
    undecided_boxes: int = Field(3, ge=1)
    rare_share: float = Field(0.01, gt=0, le=1)
    uncertainty: float = Field(1.0, gt=0)
    disagreement: float = Field(1.0, ge=0)
    rarity: float = Field(1.0, ge=0)
    pool: int = Field(10, ge=1)
    base: float = Field(0.1, gt=0)
    alike_levels: float = Field(40, gt=0)
    same_burst: float = Field(0.1, ge=0, le=1)
    batch: int = Field(16, ge=1)
    threads: int = Field(8, ge=1)
