"""Pictures of frames on the pages that lie beside candidates, and how a withdrawn frame leaves them."""

import hashlib
import re
from collections.abc import Collection
from collections.abc import Set as AbstractSet

from export.candidates import MANIFEST_NAME, PREFIX, Candidate, CandidateFile, candidate_key, list_candidates
from trashnet.store import ObjectStore

HTML = "text/html; charset=utf-8"
FIGURE = re.compile(rb"<figure\b.*?</figure>", re.DOTALL)
IMAGE = re.compile(rb"<img\b[^>]*>")
SHA256 = re.compile(rb"\b[0-9a-f]{64}\b")
PLACEHOLDER = b"<p>This frame was withdrawn.</p>"


def remove_pictures(store: ObjectStore, sha256s: Collection[str]) -> int:
    """Take the pictures of these frames off all reports and judgements; how many there were.

    A figure of a page names its frame by its SHA-256. A report is a file of its candidate, so the manifest
    gets its new size and hash, after the page: what died in between is mended by the next call.
    """
    gone = {sha256.encode() for sha256 in sha256s}
    removed = 0
    for candidate in list_candidates(store):
        for stored in store.list(f"{PREFIX}/{candidate.version}/"):
            if stored.key.endswith(".html"):
                removed += _remove_from(store, stored.key, gone)
        _update_manifest(store, candidate)
    return removed


def _remove_from(store: ObjectStore, key: str, gone: AbstractSet[bytes]) -> int:
    removed = 0

    def replace(figure: re.Match[bytes]) -> bytes:
        nonlocal removed
        if gone.isdisjoint(SHA256.findall(figure[0])):
            return figure[0]
        text, count = IMAGE.subn(PLACEHOLDER, figure[0])
        removed += count
        return text

    page = FIGURE.sub(replace, store.get(key))
    if removed:
        store.put(key, page, HTML)
    return removed


def _update_manifest(store: ObjectStore, candidate: Candidate) -> None:
    files = dict(candidate.files)
    for name in files:
        if name.endswith(".html"):
            page = store.get(candidate_key(candidate.version, name))
            files[name] = CandidateFile(bytes=len(page), sha256=hashlib.sha256(page).hexdigest())
    if files != candidate.files:
        updated = candidate.model_copy(update={"files": files}).model_dump_json(indent=2)
        store.put(candidate_key(candidate.version, MANIFEST_NAME), updated.encode(), "application/json")
