"""The models there are: their names, files and titles, and which of them is teacher and student."""

from dataclasses import dataclass
from typing import Literal, get_args

LABELS_FILE = "labels.txt"  # beside the student's files: one class name per line


@dataclass(frozen=True, slots=True)
class Model:
    """One exported model: the name in scorecards and commands, its file, its title and what it is for."""

    name: str
    file: str
    title: str
    purpose: str


EFFICIENTDET = Model("efficientdet", "efficientdet.onnx", "EfficientDet-D0", "the teacher · ONNX")
SSD_FLOAT = Model("ssd_float", "ssd_float.tflite", "SSD float", "the student · TFLite")
SSD_INT8 = Model("ssd_int8", "ssd_int8.tflite", "SSD int8", "the student, as bins run it")

MODELS = (EFFICIENTDET, SSD_FLOAT, SSD_INT8)  # the order of every table and plot
MODEL_NAMES = tuple(model.name for model in MODELS)
TEACHER, STUDENT = EFFICIENTDET, SSD_INT8
Role = Literal["teacher", "student"]  # of a model in use: one pre-labels frames, the other runs on bins
ROLES: tuple[Role, ...] = get_args(Role)
MODEL_OF_ROLE: dict[Role, Model] = {"teacher": TEACHER, "student": STUDENT}
EDGETPU_FILE = "ssd_int8_edgetpu.tflite"  # the student as Google's compiler leaves it, where there is one
EDGETPU_REPORT_FILE = "edgetpu.json"  # whether the student fits the EdgeTPU
SHIPPED_FILES = (
    EFFICIENTDET.file,
    LABELS_FILE,
    SSD_FLOAT.file,
    SSD_INT8.file,
)  # what a candidate consists of
