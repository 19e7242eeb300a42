"""The frozen network with TFLite's detection post-processing behind it, as a SavedModel that the converter understands."""

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
    """The network alone as a constant graph: image ``(1, S, S, 3)`` to box encodings ``(1, N, 4)`` and scores ``(1, N, C)``.

    Alone, because freezing the post-processing with it gives, silently, an empty model.
    """
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32)])  # type: ignore[untyped-decorator]
    def network(image: Any) -> Any:
        encodings, logits = model(image, training=False)
        return encodings, tf.sigmoid(logits)

    return convert_variables_to_constants_v2(network.get_concrete_function())


def save_with_postprocess(
    network: Any, anchors: NDArray[np.float32], classes: int, params: ExportParams, out: Path
) -> None:
    """Write a SavedModel of the frozen network, then the post-processing operator, to the folder ``out``.

    ``anchors``: ``(N, 4)``, centre y, centre x, height, width. The operator has no TensorFlow equivalent: an
    empty function that says what it implements stands for it, and the converter puts the operator in its
    place (as the OD API's ``export_tflite_graph_tf2``).
    """

    @tf.function(experimental_implements=_implements(classes, params))  # type: ignore[untyped-decorator]
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


def _implements(classes: int, params: ExportParams) -> str:
    integers = {
        "max_detections": params.max_detections,
        "max_classes_per_detection": 1,
        "num_classes": classes,
    }
    scales = dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), BOX_SCALES, strict=True))
    floats = {"nms_score_threshold": params.score_threshold, "nms_iou_threshold": params.nms_iou} | scales
    parts = [f'name: "{OPERATOR}"']
    parts += [f'attr {{ key: "{key}" value {{ i: {value} }} }}' for key, value in integers.items()]
    parts += [f'attr {{ key: "{key}" value {{ f: {value:.10f} }} }}' for key, value in floats.items()]
    parts += [f'attr {{ key: "use_regular_nms" value {{ b: {str(params.per_class_nms).lower()} }} }}']
    return " ".join(parts)
