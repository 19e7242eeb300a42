"""The state of a deployment, as far as it can be seen: collected, and shown as text or JSON."""

from operations.status.collection import collect_status
from operations.status.report import ServerStatus, Status

__all__ = ["ServerStatus", "Status", "collect_status"]
