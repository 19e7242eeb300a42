"""Selection works on what ingest brought in: the same empty store and ledger."""

from tests.ingest.conftest import ledger, params, store

__all__ = ["ledger", "params", "store"]
