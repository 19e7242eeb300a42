"""Selection uses the same empty store and ledger as ingest."""

from tests.ingest.conftest import ledger, params, store

__all__ = ["ledger", "params", "store"]
