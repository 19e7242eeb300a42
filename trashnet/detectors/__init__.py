"""A trained model as all rooms but its training room use it: an exported file behind one verb, ``detect``.

``open_detector`` reads ``.onnx`` (the teacher) and ``.tflite`` (the student, float or int8) and needs neither
torch nor tensorflow.
"""

from trashnet.detectors._open import open_detector
from trashnet.detectors._types import Detections, Detector

__all__ = ["Detections", "Detector", "open_detector"]
