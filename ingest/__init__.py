"""Frames in: the inbox is drained, what is fit is cleaned, stored and entered in the ledger, and triage says what a person should see."""

from ingest.choosing import choose
from ingest.decoding import Decoders
from ingest.ledger import FrameRow, Ledger, open_ledger
from ingest.params import IngestParams, TriageParams
from ingest.receiving import Received, receive, shards, waiting
from ingest.settling import Settled, settle
from ingest.sweeping import sweep_inbox
from ingest.triage import score_frames

__all__ = [
    "Decoders",
    "FrameRow",
    "IngestParams",
    "Ledger",
    "Received",
    "Settled",
    "TriageParams",
    "choose",
    "open_ledger",
    "receive",
    "score_frames",
    "settle",
    "shards",
    "sweep_inbox",
    "waiting",
]
