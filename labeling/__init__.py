"""Boxes on: frames become Label Studio tasks with pre-labels, and people's answers come back as checked labels."""

from labeling.agreement import Agreement, agreement
from labeling.client import Client, LabelStudioDown, connect
from labeling.collection import Collected, collect
from labeling.interface import labelling_config
from labeling.params import LabelingParams
from labeling.project import Project, ensure_project
from labeling.queue import Queue, queue
from labeling.tasks import request_labels

__all__ = [
    "Agreement",
    "Client",
    "Collected",
    "LabelStudioDown",
    "LabelingParams",
    "Project",
    "Queue",
    "agreement",
    "collect",
    "connect",
    "ensure_project",
    "labelling_config",
    "queue",
    "request_labels",
]
