"""Frames in: the inbox is drained, what is fit is cleaned, stored and entered in the ledger."""

from ingest.decoders import DecoderPool
from ingest.deduplication import DeduplicationCounts, deduplicate
from ingest.inbox import LOOK_SECONDS, NO_BIN, InboxWatch, has_uploads
from ingest.inbox_sweep import sweep_inbox
from ingest.params import IngestParams
from ingest.quotas import Admission, admit_uploads
from ingest.reception import ReceptionCounts, receive, split_into_shards
from ingest.retention import remove_expired
from ingest.work import IngestRound, drain_inbox, ingest_due

__all__ = [
    "LOOK_SECONDS",
    "NO_BIN",
    "Admission",
    "DecoderPool",
    "DeduplicationCounts",
    "InboxWatch",
    "IngestParams",
    "IngestRound",
    "ReceptionCounts",
    "admit_uploads",
    "deduplicate",
    "drain_inbox",
    "has_uploads",
    "ingest_due",
    "receive",
    "remove_expired",
    "split_into_shards",
    "sweep_inbox",
]
