from datetime import UTC, date, datetime

from pydantic import Field

from trashnet.ledger import MAX_HASH_DISTANCE
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
    uploads_per_bin_and_day: int | None = Field(5000, ge=1)
    bytes_per_bin_and_day: int | None = Field(4 << 30, ge=1)
    linger_seconds: float = Field(60, ge=0)
    threads: int = Field(16, ge=1)
    batch_size: int = Field(64, ge=1)
    shard_size: int = Field(500, ge=1)
    decoders: int | None = Field(None, ge=1)
    decode_seconds: int = Field(10, ge=1)
    decode_wall_seconds: float = Field(60, gt=0)
    decode_memory_mb: int = Field(1024, ge=256)
    reencode_hash_distance: int = Field(2, ge=0, le=MAX_HASH_DISTANCE)
    reencode_candidates: int = Field(32, ge=1)
    reencode_colour_distance: int = Field(6, ge=0, le=255)

    @property
    def not_before(self) -> datetime:
        """The earliest time that a bin's clock may tell."""
        return datetime(self.earliest.year, self.earliest.month, self.earliest.day, tzinfo=UTC)
