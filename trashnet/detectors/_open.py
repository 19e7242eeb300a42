from pathlib import Path

from trashnet.detectors._types import Detector
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy


def open_detector(path: Path, taxonomy: Taxonomy) -> Detector:
    """Open an exported model by its suffix.

    Raises:
        UserError: The file is missing or of an unknown kind, or the model knows a class that the taxonomy
            does not.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such model. `dvc repro` trains and exports the models, "
            "`dvc pull` fetches trained ones."
        )
    match path.suffix:
        case ".onnx":
            from trashnet.detectors._onnx import OnnxDetector

            return OnnxDetector(path, taxonomy)
        case ".tflite":
            from trashnet.detectors._tflite import TfliteDetector

            return TfliteDetector(path, taxonomy)
        case _:
            raise UserError(f"{path}: not a model this program opens; it opens .onnx and .tflite")
