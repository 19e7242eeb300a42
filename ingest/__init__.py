"""Frames in: the inbox is drained, what is fit is cleaned, stored and entered in the ledger, and triage says what a person should see."""

from ingest.ledger import FrameRow, Ledger, open_ledger
from ingest.params import IngestParams
from ingest.receiving import Received, receive, shards, waiting
from ingest.settling import Settled, settle
from ingest.sweeping import sweep_inbox

__all__ = [
    "FrameRow",
    "IngestParams",
    "Ledger",
    "Received",
    "Settled",
    "open_ledger",
    "receive",
    "settle",
    "shards",
    "sweep_inbox",
    "waiting",
]
