from pydantic import Field

from trashnet.params import Params


class ImportParams(Params):
    """Section ``import`` of ``params.yaml``: which images of a data set are imported."""

    min_side: int = Field(16, ge=1)
    max_pixels: int = Field(50_000_000, ge=1, le=178_956_970)  # Pillow refuses more by itself
