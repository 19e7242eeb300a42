"""SSD MobileNet v2 in Keras 3: the network and its loss, on any of Keras's backends.

Liu et al. 2016 (arXiv:1512.02325) on MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), laid out like the
Object Detection API's ``ssd_mobilenet_v2``: maps from the expansion of block 13 (stride 16), the last layer
(stride 32) and four extra layers, ReLU6 throughout. The heads are 1x1 convolutions: 3x3 heads for 57 classes
would need 13 MiB of int8 weights, and the EdgeTPU holds 6.9.
"""

from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.ssd.anchors import anchors_per_cell, make_anchors
from training.ssd.loss import DetectionLoss
from training.ssd.params import SsdParams
from trashnet.errors import UserError

EXTRA_CHANNELS = (
    (256, 512),
    (128, 256),
    (128, 256),
    (64, 128),
)  # (1x1, then 3x3 with stride 2) of each extra layer
PRIOR = 0.01  # every class's probability at the start: Lin et al. 2017, section 4.1
WEIGHT_FILES = (
    "mobilenet_v2_1.0_224_no_top.weights.h5",
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
)


class Ssd(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The network, ``(B, S, S, 3)`` in [-1, 1] to encodings ``(B, N, 4)`` and logits ``(B, N, C)``, with the detection loss.

    Train it on ``(images, {"boxes": (B, M, 4) as y0, x0, y1, x1 in [0, 1], "classes": (B, M) class index, -1
    = padding})``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.detection_loss: DetectionLoss | None = None
        self.box_weight = 1.0
        self.replicas = 1  # gradients of replicas are summed, so each gives its share of the mean
        self.box_tracker = keras.metrics.Mean(name="box_loss")
        self.class_tracker = keras.metrics.Mean(name="class_loss")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # Keras's signature
        """The weighted sum of both losses, divided by the number of replicas."""
        if self.detection_loss is None:
            raise ValueError("set `detection_loss` before training")
        box_loss, class_loss = self.detection_loss(y["boxes"], y["classes"], *y_pred)
        self.box_tracker.update_state(box_loss)
        self.class_tracker.update_state(class_loss)
        return (self.box_weight * box_loss + class_loss) / self.replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The running means since the last reset; Keras's own would look for compiled metrics."""
        return {metric.name: metric.result() for metric in self.metrics}


def build_model(image_size: int, classes: int) -> Ssd:
    """The network with random weights, for square images of ``image_size`` and ``classes`` classes.

    Feature maps have the sizes of :func:`training.ssd.anchors.map_sizes`, anchors their order.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    backbone = keras.applications.MobileNetV2(input_tensor=image, alpha=1.0, include_top=False, weights=None)
    maps = [backbone.get_layer("block_13_expand_relu").output, backbone.output]
    for number, (narrow, wide) in enumerate(EXTRA_CHANNELS, 1):
        x = _convolution(maps[-1], narrow, 1, 1, f"extra_{number}_reduce")
        maps.append(_convolution(x, wide, 3, 2, f"extra_{number}"))
    boxes = [_head(x, level, 4, "box") for level, x in enumerate(maps)]
    logits = [_head(x, level, classes, "class") for level, x in enumerate(maps)]
    return Ssd(image, (_joined(boxes, "box_encodings"), _joined(logits, "logits")), name="ssd_mobilenet_v2")


def anchors_of(model: Ssd) -> NDArray[np.float32]:
    """The model's anchors ``(N, 4)``: centre y, centre x, height, width."""
    sides = [model.get_layer(f"class_{level}").output.shape[1] for level in range(2 + len(EXTRA_CHANNELS))]
    return make_anchors(sides)


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_BN")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _head(x: Any, level: int, width: int, kind: Literal["box", "class"]) -> Any:
    bias = keras.initializers.Constant(-np.log((1 - PRIOR) / PRIOR)) if kind == "class" else "zeros"
    start = keras.initializers.RandomNormal(stddev=0.01)
    x = layers.Conv2D(
        anchors_per_cell(level) * width,
        1,
        kernel_initializer=start,
        bias_initializer=bias,
        name=f"{kind}_{level}",
    )(x)
    return layers.Reshape((-1, width), name=f"{kind}_{level}_flat")(x)


def _joined(parts: list[Any], name: str) -> Any:
    joined = layers.Concatenate(axis=1, name=f"{name}_joined")(parts)
    return layers.Activation("linear", dtype="float32", name=name)(
        joined
    )  # float32 also under mixed precision


def prepare(model: Ssd, params: SsdParams, *, pretrained: bool, replicas: int = 1) -> None:
    """Give the model its loss, and its batch normalisation the behaviour ``params.batch_norm`` asks for.

    A pretrained backbone's statistics stay as they are ("frozen", what "auto" then means): they come from a
    million photos, a batch of ours is a few dozen similar frames. A random one has to find its own. The extra
    layers are new and always learn theirs.
    """
    frozen = params.batch_norm == "frozen" or (params.batch_norm == "auto" and pretrained)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = params.batch_norm_momentum
            layer.trainable = layer.name.startswith("extra_") or not frozen
    model.detection_loss = DetectionLoss(
        anchors_of(model), matched_iou=params.matched_iou, alpha=params.focal_alpha, gamma=params.focal_gamma
    )
    model.box_weight = params.box_weight
    model.replicas = replicas


def load_backbone(model: Ssd, params: SsdParams) -> str:
    """Fill the backbone as ``params.weights`` asks; returns in words what it began from, for ``model.json``.

    Raises :class:`UserError` if ``weights_dir`` holds no such file. If Keras cannot download its weights, the
    backbone stays random: the caller is told so in the words returned, which then begin with "random".
    """
    if params.weights == "none":
        return "random, as asked (weights: none)"
    if params.weights_dir is not None:
        return _load_file(model, _find_file(params.weights_dir))
    try:
        donor = keras.applications.MobileNetV2(
            (224, 224, 3), alpha=1.0, include_top=False, weights="imagenet"
        )
    except Exception as error:  # get_file raises no narrower class when the download fails
        if "URL fetch failure" not in str(error):
            raise
        return f"random, because the ImageNet weights could not be downloaded ({error})"
    _copy_backbone(donor, model)
    return "ImageNet (keras.applications)"


def _find_file(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: holds no MobileNetV2 weights; put {' or '.join(WEIGHT_FILES)} there, or unset ssd.weights_dir"
    )


def _load_file(model: Ssd, path: Path) -> str:
    donor = keras.applications.MobileNetV2((224, 224, 3), alpha=1.0, include_top=False, weights=None)
    try:
        donor.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not the weights of MobileNetV2 1.0 without top: {error}") from None
    _copy_backbone(donor, model)
    return f"ImageNet ({path.name})"


def _copy_backbone(donor: keras.Model, model: Ssd) -> None:
    for layer in donor.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
