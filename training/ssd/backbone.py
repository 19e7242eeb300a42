"""Pretrained weights for the student's backbone, MobileNetV2."""

import logging
from pathlib import Path

import keras

from training.ssd.model import Ssd
from training.ssd.params import SsdParams
from trashnet.errors import UserError

log = logging.getLogger(__name__)

WEIGHTS_FILES = (
    "mobilenet_v2_1.0_224_no_top.weights.h5",
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
)


def load_backbone(model: Ssd, params: SsdParams) -> str:
    """Load the backbone weights that ``params.weights`` asks for.

    If Keras cannot download its weights, the backbone stays random, which is logged as a warning.

    Returns:
        Where the weights come from, for ``model.json``; it begins with "random" where they are random.

    Raises:
        UserError: ``params.weights_dir`` holds no such weights.
    """
    if params.weights == "none":
        return "random, as asked (weights: none)"
    if params.weights_dir is not None:
        return _load_file(model, _find_file(params.weights_dir))
    try:
        donor = _mobilenet_v2("imagenet")
    except Exception as error:  # get_file raises no narrower class when the download fails
        if "URL fetch failure" not in str(error):
            raise
        backbone = f"random, because the ImageNet weights could not be downloaded ({error})"
        log.warning(
            "THE BACKBONE IS RANDOM: %s. Expect a poor model; put the weights into ssd.weights_dir.", backbone
        )
        return backbone
    _copy_weights(donor, model)
    return "ImageNet (keras.applications)"


def _mobilenet_v2(weights: str | None) -> keras.Model:
    return keras.applications.MobileNetV2((224, 224, 3), alpha=1.0, include_top=False, weights=weights)


def _find_file(folder: Path) -> Path:
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: holds no MobileNetV2 weights; put {' or '.join(WEIGHTS_FILES)} there, "
        "or unset ssd.weights_dir"
    )


def _load_file(model: Ssd, path: Path) -> str:
    donor = _mobilenet_v2(None)
    try:
        donor.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not the weights of MobileNetV2 1.0 without top: {error}") from None
    _copy_weights(donor, model)
    return f"ImageNet ({path.name})"


def _copy_weights(donor: keras.Model, model: Ssd) -> None:
    for layer in donor.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
