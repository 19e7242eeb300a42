"""The export of the teacher: one self-contained file whose detections are those of effdet in PyTorch."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from effdet import DetBenchPredict
from effdet.anchors import Anchors

from export import export_onnx
from export.onnx import compare_heads, make_test_images
from training.efficientdet import load_trained
from training.efficientdet.model import EfficientDetD0, describe_model
from training.efficientdet.targets import decode_boxes as decode_boxes_in_torch
from trashnet.boxes import xywh_to_xyxy
from trashnet.detectors import Detections, open_detector
from trashnet.detectors._onnx import OnnxDetector
from trashnet.detectors._postprocess import batched_nms, decode_boxes, pyramid_anchors, top_k
from trashnet.errors import UserError
from trashnet.files import write_json
from trashnet.letterbox import IMAGENET_MEAN, IMAGENET_STD, letterbox
from trashnet.taxonomy import Taxonomy, WasteClass

pytestmark = pytest.mark.heavy

IMAGE_SIZE = 256
D0_ANCHORS = {
    "min_level": 3,
    "max_level": 7,
    "num_scales": 3,
    "aspect_ratios": [[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]],
    "anchor_scale": 4.0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Path:
    """A network as after training: stable BatchNorm statistics, and heads with high and low scores."""
    from safetensors.torch import save_file

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("trained")
    model = EfficientDetD0(len(taxonomy.names), IMAGE_SIZE, batch_norm_momentum=0.5).train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.from_numpy(make_test_images(IMAGE_SIZE)))
        heads = zip(
            (model.net.class_net, model.net.box_net),
            model.eval()(torch.from_numpy(make_test_images(IMAGE_SIZE))),
            (2.5, 0.4),
            strict=True,
        )
        for head, output, spread in heads:
            head.predict.conv_pw.weight *= spread / output.std()
    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(
        folder / "model.json",
        {**describe_model(model, taxonomy.names, IMAGE_SIZE), "report": {"backbone": "random"}},
    )
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory):
    """The exported file and its report."""
    out = tmp_path_factory.mktemp("models") / "efficientdet.onnx"
    return out, export_onnx(trained, out)


def photos() -> list[np.ndarray]:
    """Images of several shapes."""
    first, second = make_test_images(400)
    return [first, second[:211, :333], first[:90, 50:130], second[:300, :150]]


def test_the_report_has_size_opset_and_differences(exported):
    """The file is about as large as the weights, and its heads differ by rounding only."""
    out, report = exported
    assert report.path == out
    assert report.size == out.stat().st_size < 17e6
    assert report.opset >= 18
    assert 0 <= report.logits_difference < 1e-3
    assert 0 <= report.codes_difference < 1e-3
    assert (report.image_size, report.classes) == (IMAGE_SIZE, 57)


def test_one_file_holds_everything(exported, taxonomy: Taxonomy):
    """No external data, no path of this machine; classes, mean, anchors and letterbox in its metadata."""
    out, _ = exported
    assert [p.name for p in out.parent.iterdir()] == ["efficientdet.onnx"]
    assert str(Path(__file__).resolve().parents[2]).encode() not in out.read_bytes()
    stored = {p.key: json.loads(p.value) for p in onnx.load(out).metadata_props}
    assert stored["trashnet.classes"] == list(taxonomy.names)
    assert stored["trashnet.image_size"] == IMAGE_SIZE
    assert stored["trashnet.mean"] == list(IMAGENET_MEAN)
    assert stored["trashnet.std"] == list(IMAGENET_STD)
    assert stored["trashnet.anchors"] == D0_ANCHORS
    assert stored["trashnet.letterbox"] == {"position": "top left", "fill": [124, 116, 104]}


def test_a_file_that_disagrees_with_pytorch_is_refused(exported):
    """The message names the file and the difference; NaN is refused too."""
    out, _ = exported
    images = make_test_images(IMAGE_SIZE)[:1]
    shape = (1, 9 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2))
    for value in (0.0, np.nan):
        different = [np.full((*shape, 57), value, np.float32), np.full((*shape, 4), value, np.float32)]
        with pytest.raises(UserError, match="disagree"):
            compare_heads(out, images, different)


def test_exporting_before_training_has_finished_is_refused(tmp_path: Path):
    """Without model.json nothing is exported and no file is written."""
    with pytest.raises(UserError, match="no finished training"):
        export_onnx(tmp_path, tmp_path / "models" / "efficientdet.onnx")
    assert not (tmp_path / "models").exists()


def test_detections_equal_effdets_in_pytorch(exported, trained: Path, taxonomy: Taxonomy):
    """On four images of four shapes: boxes to half a pixel, scores to 0.001, classes exactly."""
    out, _ = exported
    found = open_detector(out, taxonomy).detect(photos())
    model, _ = load_trained(trained)
    bench = DetBenchPredict(model.net).eval()
    for image, detections in zip(photos(), found, strict=True):
        fitted, scale = letterbox(image, IMAGE_SIZE)
        pixels = (torch.from_numpy(fitted).permute(2, 0, 1)[None].float() - model.mean) / model.std
        size = torch.tensor([[float(image.shape[1]), float(image.shape[0])]])
        with torch.no_grad():
            expected = bench(pixels, {"img_scale": torch.tensor([1 / scale]), "img_size": size})[0].numpy()
        expected = expected[expected[:, 4] >= 0.001]
        assert len(detections) == len(expected) > 20
        assert_same_detections(detections, expected)


def assert_same_detections(found: Detections, expected: np.ndarray) -> None:
    """Scores in order; each box beside the one of the same class and score."""
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-3)
    for box, class_id, score in zip(xywh_to_xyxy(found.boxes), found.class_ids, found.scores, strict=True):
        similar = expected[(np.abs(expected[:, 4] - score) < 1e-3) & (expected[:, 5] == class_id)]
        assert np.abs(similar[:, :4] - box).max(axis=1).min() < 0.5


def test_detections_keep_the_protocol(exported, taxonomy: Taxonomy):
    """Best first, within the image, at most 100, with taxonomy ids and the documented types."""
    out, _ = exported
    detector = open_detector(out, taxonomy)
    assert detector.name == "efficientdet"
    assert detector.detect([]) == []
    for image, found in zip(photos(), detector.detect(photos()), strict=True):
        assert found.boxes.dtype == found.scores.dtype == np.float32
        assert found.class_ids.dtype == np.int64
        assert 0 < len(found) <= 100
        assert (np.diff(found.scores) <= 0).all()
        assert set(found.class_ids.tolist()) <= set(taxonomy.name_of)
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 0] + found.boxes[:, 2] <= image.shape[1] + 1e-3).all()
        assert (found.boxes[:, 1] + found.boxes[:, 3] <= image.shape[0] + 1e-3).all()


def test_batches_of_any_size_give_the_same_detections(exported, taxonomy: Taxonomy):
    """The batch size is dynamic; eleven images are more than one batch."""
    out, _ = exported
    detector = open_detector(out, taxonomy)
    images = (photos() * 3)[:11]
    batched = detector.detect(images)
    for image, found in zip(images[:4], batched[:4], strict=True):
        single = detector.detect([image])[0]
        np.testing.assert_allclose(single.scores, found.scores, atol=1e-5)
    np.testing.assert_allclose(batched[0].boxes, batched[8].boxes, atol=1e-3)


def test_options_limit_the_detections(exported, taxonomy: Taxonomy):
    """By a minimum score and a maximum number."""
    out, _ = exported
    found = OnnxDetector(out, taxonomy, min_score=0.05, max_detections=7).detect(photos())
    assert all(len(detections) <= 7 and (detections.scores >= 0.05).all() for detections in found)
    assert any(len(detections) for detections in found)


def test_class_ids_come_from_the_taxonomy_by_name(exported, taxonomy: Taxonomy):
    """Appending a class changes no id; a taxonomy that lacks a class of the model is refused."""
    out, _ = exported
    more = Taxonomy((*taxonomy.classes, WasteClass(58, "New", "New", "landfill")), taxonomy.streams)
    fewer = Taxonomy(taxonomy.classes[:-1], taxonomy.streams)
    found, with_more = (open_detector(out, t).detect(photos()[:1])[0] for t in (taxonomy, more))
    assert found.class_ids.tolist() == with_more.class_ids.tolist() != []
    with pytest.raises(UserError, match="Cigarette, which the taxonomy does not"):
        open_detector(out, fewer)


def test_a_bad_file_is_refused(tmp_path: Path, taxonomy: Taxonomy):
    """A damaged file, and a model of another exporter."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(UserError, match="damaged, or not an ONNX model"):
        open_detector(broken, taxonomy)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "other.onnx",
    )
    with pytest.raises(UserError, match="not one this version exported"):
        open_detector(tmp_path / "other.onnx", taxonomy)


@pytest.mark.parametrize("size", [128, 256, 512, 640])
def test_numpy_anchors_equal_effdets(size: int):
    """Every one, in the same order, corners swapped to x first."""
    expected = Anchors(3, 7, 3, [(1.0, 1.0), (1.4, 0.7), (0.7, 1.4)], 4.0, (size, size)).boxes.numpy()
    np.testing.assert_allclose(pyramid_anchors(size, **D0_ANCHORS), expected[:, [1, 0, 3, 2]], atol=1e-4)


def test_numpy_boxes_equal_trainings():
    """The detector decodes what training encoded."""
    rng = np.random.default_rng(1)
    anchors = pyramid_anchors(128, **D0_ANCHORS)[:500]
    codes = rng.normal(0, 0.5, (500, 4)).astype(np.float32)
    y_first = torch.from_numpy(anchors[:, [1, 0, 3, 2]].copy())
    expected = decode_boxes_in_torch(torch.from_numpy(codes), y_first).numpy()[:, [1, 0, 3, 2]]
    np.testing.assert_allclose(decode_boxes(codes, anchors), expected, atol=1e-3)


def test_decoding_by_hand():
    """Anchor 20 x 10 around (10, 5), code ty 0.5, tx 0.5, th log 2, tw 0: centre (20, 10), 20 x 20."""
    found = decode_boxes(
        np.array([[0.5, 0.5, np.log(2), 0]], np.float32), np.array([[0, 0, 20, 10]], np.float32)
    )
    np.testing.assert_allclose(found, [[10, 0, 30, 20]], atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "max_detections", "kept"),
    [
        ([0, 0, 0, 0], 9, [0, 2, 3]),  # the second covers the first by 90 / 110 = 0.82
        ([0, 1, 0, 0], 9, [0, 1, 2, 3]),  # of another class it stays
        ([0, 0, 0, 0], 2, [0, 2]),
    ],
)
def test_nms_by_hand(classes: list[int], max_detections: int, kept: list[int]):
    """An IoU of exactly the threshold is kept."""
    # boxes 0 and 1: intersection 90, union 110; boxes 0 and 2: intersection 50, union 100
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 5, 10], [20, 20, 30, 30]], np.float32)
    assert batched_nms(boxes, np.array(classes), 0.5, max_detections).tolist() == kept


def test_nms_of_nothing_is_nothing():
    """No candidates, no detections; boxes without area overlap nothing, and nothing is divided by zero."""
    assert batched_nms(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 0.5, 100).tolist() == []
    assert batched_nms(np.zeros((2, 4), np.float32), np.zeros(2, np.int64), 0.5, 100).tolist() == [0, 1]


def test_top_k_by_hand():
    """Of 2 anchors and 3 classes."""
    logits = np.array([[0.1, 3.0, -2.0], [2.0, 0.2, 5.0]], np.float32)
    anchors, classes, values = top_k(logits, 3, 0.0)
    assert (anchors.tolist(), classes.tolist(), values.tolist()) == ([1, 0, 1], [2, 1, 0], [5.0, 3.0, 2.0])
    assert len(top_k(logits, 9, 2.5)[0]) == 2
