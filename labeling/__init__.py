"""Boxes on: frames become Label Studio tasks, and annotations become validated labels."""

from labeling.agreement import AnnotatorAgreement, annotator_agreement
from labeling.client import Client, LabelStudioUnavailable, connect
from labeling.collection import CollectedLabels, collect_labels
from labeling.interface import label_config
from labeling.params import LabelingParams
from labeling.project import Project, ensure_project
from labeling.queue import TaskQueue, collection_due, count_queue, request_due, room_for_tasks
from labeling.removal import delete_tasks
from labeling.tasks import request_labels

__all__ = [
    "AnnotatorAgreement",
    "Client",
    "CollectedLabels",
    "LabelStudioUnavailable",
    "LabelingParams",
    "Project",
    "TaskQueue",
    "annotator_agreement",
    "collect_labels",
    "collection_due",
    "connect",
    "count_queue",
    "delete_tasks",
    "ensure_project",
    "label_config",
    "request_due",
    "request_labels",
    "room_for_tasks",
]
