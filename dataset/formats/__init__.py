"""COCO, VOC and YOLO come in and go out: readers that name every fault, image validation, import and export."""

from dataset.formats.exporter import export_dataset
from dataset.formats.importer import ImportReport, import_dataset, load_mapping
from dataset.formats.params import ImportParams

__all__ = ["ImportParams", "ImportReport", "export_dataset", "import_dataset", "load_mapping"]
