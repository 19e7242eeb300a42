"""Frames in: the inbox, checked, deduplicated, stored, entered in the ledger."""
