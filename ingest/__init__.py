"""Frames in: the inbox is drained, what is fit is cleaned, stored and entered in the ledger."""

from ingest.decoders import Decoders
from ingest.deduplication import DeduplicationCounts, deduplicate
from ingest.inbox_sweep import sweep_inbox
from ingest.params import IngestParams
from ingest.reception import ReceptionCounts, pending_uploads, receive, shards
from ingest.work import IngestRound, drain_inbox, ingest_due

__all__ = [
    "Decoders",
    "DeduplicationCounts",
    "IngestParams",
    "IngestRound",
    "ReceptionCounts",
    "deduplicate",
    "drain_inbox",
    "ingest_due",
    "pending_uploads",
    "receive",
    "shards",
    "sweep_inbox",
]
