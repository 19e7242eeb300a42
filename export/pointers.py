"""What the objects that point to candidates have in common: small JSON objects, written if unchanged."""

from trashnet.errors import UserError
from trashnet.store import ObjectStore

MAX_POINTER_BYTES = 1 << 20
MAX_ATTEMPTS = 10  # to write an object that others write at the same time
JSON_TYPE = "application/json"


def contended(store: ObjectStore, key: str) -> UserError:
    """The error of an object that others kept writing."""
    return UserError(f"{store}: {key} was changed {MAX_ATTEMPTS} times meanwhile; run this again")
