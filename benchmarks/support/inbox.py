"""The inbox at a glance, for inboxes that are small: the product lists it a stretch at a time."""

from ingest.object_keys import INBOX
from trashnet.store import ObjectStore


def pending_uploads(store: ObjectStore) -> list[str]:
    """The keys of the sidecars in the inbox, sorted: uploads that are complete."""
    return [stored.key for stored in store.list(INBOX) if stored.key.endswith(".json")]
