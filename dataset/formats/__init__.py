"""Import and export of data sets in COCO, VOC and YOLO format, with validation of their images."""

from dataset.formats.exporter import export_dataset
from dataset.formats.import_report import ImportReport
from dataset.formats.importer import import_dataset
from dataset.formats.mapping import load_mapping
from dataset.formats.params import ImportParams

__all__ = ["ImportParams", "ImportReport", "export_dataset", "import_dataset", "load_mapping"]
