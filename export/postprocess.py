"""The frozen network followed by TFLite's detection post-processing, as a SavedModel for the converter."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from export.params import ExportParams
from training.ssd.anchors import BOX_SCALES

OPERATOR = "TFLite_Detection_PostProcess"


def freeze(model: keras.Model) -> Any:
    """The network without post-processing as a constant graph.

    It takes an image ``(1, S, S, 3)`` and gives box encodings ``(1, N, 4)`` and scores ``(1, N, C)``.
    Freezing the post-processing together with it silently gives an empty model.
    """
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32)])  # type: ignore[untyped-decorator]
    def network(image: Any) -> Any:
        encodings, logits = model(image, training=False)
        return encodings, tf.sigmoid(logits)

    return convert_variables_to_constants_v2(network.get_concrete_function())


def save_with_postprocess(
    network: Any, anchors: NDArray[np.float32], num_classes: int, params: ExportParams, out: Path
) -> None:
    """Write a SavedModel of the frozen network, followed by the post-processing operator.

    The operator has no TensorFlow equivalent. An empty function whose signature names the operator stands for
    it, and the converter replaces it (as the Object Detection API's ``export_tflite_graph_tf2`` does).

    Args:
        network: What :func:`freeze` returns.
        anchors: float32 ``(N, 4)``, (centre y, centre x, height, width) in [0, 1].
        num_classes: Number of classes.
        params: What the post-processing keeps.
        out: The folder of the SavedModel.
    """

    @tf.function(experimental_implements=_operator_attributes(num_classes, params))  # type: ignore[untyped-decorator]
    def postprocess(encodings: Any, scores: Any, anchors: Any) -> Any:
        del encodings, scores, anchors
        return tuple(tf.constant(0.0, name=name) for name in ("boxes", "classes", "scores", "count"))

    class Detector(tf.Module):  # type: ignore[misc]
        @tf.function(
            input_signature=[
                tf.TensorSpec(network.inputs[0].shape, tf.float32, name="normalized_input_image_tensor")
            ]
        )  # type: ignore[untyped-decorator]
        def detect(self, image: Any) -> Any:
            encodings, scores = network(image)
            boxes, labels, best, count = postprocess(encodings, scores, tf.constant(anchors))
            return {"boxes": boxes, "classes": labels, "scores": best, "count": count}

    module = Detector()
    tf.saved_model.save(
        module,
        str(out),
        signatures=module.detect.get_concrete_function(),
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def _operator_attributes(num_classes: int, params: ExportParams) -> str:
    integers = {
        "max_detections": params.max_detections,
        "max_classes_per_detection": 1,
        "num_classes": num_classes,
    }
    scales = dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), BOX_SCALES, strict=True))
    floats = {"nms_score_threshold": params.score_threshold, "nms_iou_threshold": params.nms_iou} | scales
    parts = [f'name: "{OPERATOR}"']
    parts += [f'attr {{ key: "{key}" value {{ i: {value} }} }}' for key, value in integers.items()]
    parts += [f'attr {{ key: "{key}" value {{ f: {value:.10f} }} }}' for key, value in floats.items()]
    parts += [f'attr {{ key: "use_regular_nms" value {{ b: {str(params.per_class_nms).lower()} }} }}']
    return " ".join(parts)
