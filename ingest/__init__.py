"""Frames in: the inbox is drained, what is fit is cleaned, stored and entered in the ledger."""

from ingest.decoders import Decoders
from ingest.deduplication import DeduplicationCounts, deduplicate
from ingest.inbox_sweep import sweep_inbox
from ingest.params import IngestParams
from ingest.reception import ReceptionCounts, receive, shards, waiting
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
    "receive",
    "shards",
    "sweep_inbox",
    "waiting",
]
