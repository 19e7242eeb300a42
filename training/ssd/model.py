"""SSD MobileNet v2 in Keras 3: the network with its loss, on any of Keras's backends.

Liu et al. 2016 (arXiv:1512.02325) on MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), laid out like the
Object Detection API's ``ssd_mobilenet_v2``: feature maps from the expansion of block 13 (stride 16), the last
layer (stride 32) and four extra layers, ReLU6 throughout. The heads are 1x1 convolutions: 3x3 heads for 57
classes would need 13 MiB of int8 weights, and the EdgeTPU holds 6.9.
"""

import json
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.ssd.anchors import NUM_LEVELS, anchors_per_cell, make_anchors
from training.ssd.loss import DetectionLoss
from training.ssd.params import SsdParams
from trashnet.errors import UserError

# Channels of each extra layer: of its 1x1 convolution, then of its 3x3 convolution with stride 2.
EXTRA_CHANNELS = ((256, 512), (128, 256), (128, 256), (64, 128))
CLASS_PRIOR = 0.01  # the probability of every class before training: Lin et al. 2017, section 4.1
WEIGHTS_FILE = "model.weights.h5"
DESCRIPTION_FILE = "model.json"  # written last: its presence means that the weights are complete


class Ssd(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The network with the detection loss.

    It takes images ``(B, S, S, 3)`` in [-1, 1] and gives encodings ``(B, N, 4)`` and logits ``(B, N, C)``. It
    is trained on ``(images, {"boxes": (B, M, 4), (y0, x0, y1, x1) in [0, 1]; "classes": (B, M), the class
    index, -1 for padding})``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.detection_loss: DetectionLoss | None = None
        self.box_weight = 1.0
        self.replicas = 1  # the gradients of replicas are summed, so each returns its share of the mean
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
        """The running means since the last reset; Keras's own method would look for compiled metrics."""
        return {metric.name: metric.result() for metric in self.metrics}


def build_model(image_size: int, num_classes: int) -> Ssd:
    """The network with random weights, for square images of ``image_size`` pixels.

    Its feature maps have the sizes of :func:`training.ssd.anchors.feature_map_sizes`, its outputs the order
    of the anchors.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    backbone = keras.applications.MobileNetV2(input_tensor=image, alpha=1.0, include_top=False, weights=None)
    maps = [backbone.get_layer("block_13_expand_relu").output, backbone.output]
    for number, (narrow, wide) in enumerate(EXTRA_CHANNELS, 1):
        x = _convolution(maps[-1], narrow, 1, 1, f"extra_{number}_reduce")
        maps.append(_convolution(x, wide, 3, 2, f"extra_{number}"))
    boxes = [_head(x, level, 4, "box") for level, x in enumerate(maps)]
    logits = [_head(x, level, num_classes, "class") for level, x in enumerate(maps)]
    outputs = (_concatenate(boxes, "box_encodings"), _concatenate(logits, "logits"))
    return Ssd(image, outputs, name="ssd_mobilenet_v2")


def model_anchors(model: Ssd) -> NDArray[np.float32]:
    """The anchors of a model, float32 ``(N, 4)``: centre y, centre x, height, width in [0, 1]."""
    return make_anchors([model.get_layer(f"class_{level}").output.shape[1] for level in range(NUM_LEVELS)])


def prepare_for_training(model: Ssd, params: SsdParams, *, pretrained: bool, replicas: int = 1) -> None:
    """Give the model its loss, and its batch normalisation the behaviour that ``params.batch_norm`` asks for.

    The statistics of a pretrained backbone stay as they are ("frozen", what "auto" then means): they come
    from a million photos, while a training batch is a few dozen similar frames. A random backbone has to find
    its own. The extra layers are new and always learn theirs.
    """
    frozen = params.batch_norm == "frozen" or (params.batch_norm == "auto" and pretrained)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = params.batch_norm_momentum
            layer.trainable = layer.name.startswith("extra_") or not frozen
    model.detection_loss = DetectionLoss(
        model_anchors(model),
        matched_iou=params.matched_iou,
        alpha=params.focal_alpha,
        gamma=params.focal_gamma,
    )
    model.box_weight = params.box_weight
    model.replicas = replicas


def load_trained(folder: Path) -> tuple[Ssd, dict[str, Any]]:
    """The trained network and the contents of its ``model.json``.

    Raises:
        UserError: Training has not finished, or the files of the folder do not belong together.
    """
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        model = build_model(description["image_size"], len(description["classes"]))
        model.load_weights(folder / WEIGHTS_FILE)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no finished SSD model here ({error}). `dvc repro train_ssd` trains one."
        ) from None
    return model, description


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_BN")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _head(x: Any, level: int, width: int, kind: Literal["box", "class"]) -> Any:
    bias = (
        keras.initializers.Constant(-np.log((1 - CLASS_PRIOR) / CLASS_PRIOR)) if kind == "class" else "zeros"
    )
    x = layers.Conv2D(
        anchors_per_cell(level) * width,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=bias,
        name=f"{kind}_{level}",
    )(x)
    return layers.Reshape((-1, width), name=f"{kind}_{level}_flat")(x)


def _concatenate(parts: list[Any], name: str) -> Any:
    joined = layers.Concatenate(axis=1, name=f"{name}_joined")(parts)
    # float32 also under mixed precision
    return layers.Activation("linear", dtype="float32", name=name)(joined)
