"""The teacher's anchors, matching, box codes, losses and NMS against arithmetic done by hand."""

import math

import numpy as np
import pytest
import torch
from effdet import get_efficientdet_config
from effdet.anchors import AnchorLabeler, Anchors
from effdet.loss import DetectionLoss
from hypothesis import given, settings
from hypothesis import strategies as st

from training.efficientdet import loss as losses
from training.efficientdet import targets
from training.efficientdet.average_precision import decode_detections
from training.efficientdet.lightning_module import learning_rate_factor
from training.efficientdet.targets import Targets

pytestmark = pytest.mark.heavy


def config_for(size: int, num_classes: int = 3) -> object:
    """D0's configuration at another input size."""
    config = get_efficientdet_config("tf_efficientdet_d0")
    config.image_size, config.num_classes = (size, size), num_classes
    return config


def corner_boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    """Corner boxes ``(y0, x0, y1, x1)``."""
    return torch.tensor(rows, dtype=torch.float32)


def test_the_first_anchors_of_level_3_are_the_papers():
    """Around (4, 4), base 4 x 8 = 32 px, octaves 2^0, 2^(1/3), 2^(2/3), ratios 1:1, 1.4:0.7, 0.7:1.4."""
    anchors = targets.config_anchors(config_for(128))
    # 32 x 32 around (4, 4)
    torch.testing.assert_close(anchors[0], torch.tensor([-12.0, -12.0, 20.0, 20.0]))
    # ratio (x 1.4, y 0.7): 44.8 wide, 22.4 high
    torch.testing.assert_close(anchors[1], torch.tensor([4 - 11.2, 4 - 22.4, 4 + 11.2, 4 + 22.4]))
    torch.testing.assert_close(anchors[2], torch.tensor([4 - 22.4, 4 - 11.2, 4 + 22.4, 4 + 11.2]))
    half = 16 * 2 ** (1 / 3)
    torch.testing.assert_close(anchors[3], torch.tensor([4 - half, 4 - half, 4 + half, 4 + half]))
    # the next cell is one stride to the right: nine anchors further, x + 8
    torch.testing.assert_close(anchors[9], anchors[0] + torch.tensor([0.0, 8.0, 0.0, 8.0]))


@pytest.mark.parametrize(("size", "count"), [(128, 3069), (512, 49104)])
def test_the_number_of_anchors_is_nine_per_cell_of_five_levels(size: int, count: int):
    """The levels have strides 8 to 128."""
    # 512 px: 9 x (64^2 + 32^2 + 16^2 + 8^2 + 4^2) = 9 x 5456 = 49104
    # 128 px: 9 x (16^2 + 8^2 + 4^2 + 2^2 + 1) = 9 x 341 = 3069
    assert targets.config_anchors(config_for(size)).shape == (count, 4)


@pytest.mark.parametrize(
    ("box", "anchor", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (0, 5, 10, 15), 1 / 3),  # intersection 50, union 150
        ((0, 0, 10, 10), (0, 10, 10, 20), 0.0),  # touching
        ((0, 0, 10, 10), (2, 2, 7, 7), 0.25),  # inside: 25 of 100
        ((5, 5, 5, 5), (0, 0, 10, 10), 0.0),  # no area
    ],
)
def test_iou_by_hand(box: tuple[int, ...], anchor: tuple[int, ...], iou: float):
    """Intersection over union of one pair."""
    found = targets.box_iou(
        torch.tensor([[box]], dtype=torch.float32), torch.tensor([anchor], dtype=torch.float32)
    )
    assert found.item() == pytest.approx(iou)


def test_an_anchor_is_matched_to_its_best_box_from_iou_one_half_on():
    """0.6 and 0.5 are matches, 0.49 is background; of two boxes the better: 0.8 beats 0.7."""
    iou = torch.tensor([[[0.6, 0.5, 0.49, 0.7, 0.9, 0.0], [0.1, 0.2, 0.1, 0.8, 0.1, 0.95]]])
    assert targets.match_anchors(iou, torch.tensor([[True, True]])).tolist() == [[0, 0, -1, 1, 0, 1]]


def test_a_box_that_no_anchor_overlaps_by_half_is_matched_to_its_best_one():
    """The best anchor of box 1 is anchor 0 (0.3), which it takes from box 0; box 0 keeps anchor 1."""
    iou = torch.tensor([[[0.6, 0.8, 0.1], [0.3, 0.2, 0.1]]])
    assert targets.match_anchors(iou, torch.tensor([[True, True]])).tolist() == [[1, 0, -1]]


def test_of_two_boxes_with_the_same_best_anchor_the_first_has_it():
    """Both have anchor 1."""
    iou = torch.tensor([[[0.1, 0.3, 0.2], [0.2, 0.4, 0.1]]])
    assert targets.match_anchors(iou, torch.tensor([[True, True]])).tolist() == [[-1, 0, -1]]


def test_padding_matches_nothing():
    """A padded row's overlaps do not count, nor is it matched to an anchor."""
    iou = torch.tensor([[[0.9, 0.9], [0.6, 0.1]]])
    assert targets.match_anchors(iou, torch.tensor([[False, True]])).tolist() == [[1, -1]]
    assert targets.match_anchors(iou, torch.tensor([[False, False]])).tolist() == [[-1, -1]]


def test_box_codes_by_hand():
    """Anchor 10 x 20 around (5, 10), box 20 x 20 around (10, 20): ty 5/10, tx 10/20, th log 2, tw 0."""
    code = targets.encode_boxes(corner_boxes((0, 10, 20, 30)), corner_boxes((0, 0, 10, 20)))
    torch.testing.assert_close(code, torch.tensor([[0.5, 0.5, math.log(2), 0.0]]))


corner = st.floats(-50, 400, width=32)
side = st.floats(2, 300, width=32)


@given(st.tuples(corner, corner, side, side), st.tuples(corner, corner, side, side))
@settings(max_examples=50, deadline=None)
def test_decoding_undoes_encoding(box: tuple[float, ...], anchor: tuple[float, ...]):
    """Whatever the box and the anchor."""
    (y, x, h, w), (ya, xa, ha, wa) = box, anchor
    boxes, anchors = corner_boxes((y, x, y + h, x + w)), corner_boxes((ya, xa, ya + ha, xa + wa))
    torch.testing.assert_close(
        targets.decode_boxes(targets.encode_boxes(boxes, anchors), anchors), boxes, rtol=1e-3, atol=0.01
    )


def test_targets_of_a_batch_equal_effdets_image_by_image():
    """Classes, codes and number of matches, with padding."""
    config = config_for(256)
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(4, 6, 2, generator=generator) * 180
    boxes = torch.cat([corners, corners + 8 + torch.rand(4, 6, 2, generator=generator) * 70], dim=-1)
    classes = torch.randint(0, 3, (4, 6), generator=generator)
    classes[1, 3:] = -1
    classes[2] = -1
    anchors = Anchors.from_config(config)
    expected_classes, expected_codes, _ = AnchorLabeler(anchors, 3).batch_label_anchors(
        list(boxes), [torch.where(c >= 0, c + 1, -1) for c in classes]
    )
    found = targets.assign_targets(boxes, classes, anchors.boxes)
    flat = torch.cat([level.reshape(4, -1) for level in expected_classes], dim=1)
    codes = torch.cat([level.reshape(4, -1, 4) for level in expected_codes], dim=1)
    assert (flat >= 0).sum() > 20
    assert torch.equal(found.classes, flat)
    torch.testing.assert_close(found.codes, codes, rtol=1e-4, atol=1e-5)


def test_chunks_of_a_batch_have_the_targets_of_the_batch(monkeypatch: pytest.MonkeyPatch):
    """The number of pairs compared at once changes memory, not targets."""
    anchors = targets.config_anchors(config_for(128))
    boxes = torch.rand(5, 3, 2) * 60
    boxes = torch.cat([boxes, boxes + 30], dim=-1)
    classes = torch.tensor([[0, 1, -1]] * 5)
    whole = targets.assign_targets(boxes, classes, anchors)
    monkeypatch.setattr(targets, "MAX_PAIRS", 2 * 3 * len(anchors))
    chunked = targets.assign_targets(boxes, classes, anchors)
    assert torch.equal(whole.classes, chunked.classes)
    assert torch.equal(whole.codes, chunked.codes)


@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        # p = 0.5: alpha 0.25 (1 - 0.5)^1.5 x -log 0.5 = 0.25 x 0.353553 x 0.693147
        (0.0, 0, 0.0612661),
        # background at p = 0.5: 0.75 x 0.353553 x 0.693147
        (0.0, -1, 0.1837983),
        # logit log 9, p = 0.9, right: 0.25 x 0.1^1.5 x -log 0.9 = 0.25 x 0.0316228 x 0.1053605
        (math.log(9), 0, 0.000832948),
        # p = 0.9 on background: 0.75 x 0.9^1.5 x -log 0.1 = 0.75 x 0.853815 x 2.302585
        (math.log(9), -1, 1.474485),
        # p = 0.1, missed: 0.25 x 0.9^1.5 x -log 0.1
        (-math.log(9), 0, 0.491495),
    ],
)
def test_focal_loss_by_hand(logit: float, label: int, expected: float):
    """One anchor, one class, alpha 0.25, gamma 1.5 (Lin et al. 2017, eq. 5; Tan et al. 2020)."""
    found = losses.focal_loss(torch.tensor([[[logit]]]), torch.tensor([[label]]))
    assert found.item() == pytest.approx(
        expected, rel=1e-5, abs=2e-7
    )  # float32: a match's background term cancels


def test_focal_loss_stays_finite_for_logits_of_any_size():
    """Logits of plus and minus 100, right and wrong: no infinity, no NaN, in value and gradient."""
    logits = torch.tensor([[[100.0, -100.0], [-100.0, 100.0]]], requires_grad=True)
    found = losses.focal_loss(logits, torch.tensor([[0, 0]]))
    found.backward()
    # wrong by 100: missed 0.25 x 100, false 0.75 x 100
    assert found.item() == pytest.approx(100.0)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("error", "expected"), [(0.0, 0.0), (0.05, 0.00125), (0.1, 0.005), (-0.3, 0.025), (1.0, 0.095)]
)
def test_huber_loss_by_hand(error: float, expected: float):
    """Delta 0.1, errors within and beyond it."""
    # 0.05^2 / 2 = 0.00125; 0.1^2 / 2 = 0.005; 0.1 (0.3 - 0.05) = 0.025; 0.1 (1 - 0.05) = 0.095
    target = Targets(torch.tensor([[0]]), torch.zeros(1, 1, 4))
    assert losses.box_loss(torch.tensor([[[error, 0.0, 0.0, 0.0]]]), target).item() == pytest.approx(
        expected, abs=1e-7
    )


def test_boxes_of_background_anchors_cost_nothing_but_a_perfect_anchor_counts():
    """effdet leaves out codes that are exactly 0; here an anchor that fits its box exactly counts too."""
    codes = torch.full((1, 2, 4), 1.0)
    target = Targets(torch.tensor([[0, -1]]), torch.zeros(1, 2, 4))
    assert losses.box_loss(codes, target).item() == pytest.approx(4 * 0.095)


def test_the_losses_are_divided_by_the_matches_plus_one():
    """Two matches: focal / 3, box / 12, total = focal + 50 box."""
    logits, codes = torch.zeros(1, 4, 1), torch.full((1, 4, 4), 0.05)
    target = Targets(torch.tensor([[0, 0, -1, -1]]), torch.zeros(1, 4, 4))
    found = losses.detection_loss(logits, codes, target)
    assert found.focal.item() == pytest.approx((2 * 0.0612661 + 2 * 0.1837983) / 3, rel=1e-5)
    assert found.box.item() == pytest.approx(8 * 0.00125 / 12, rel=1e-5)
    assert found.total.item() == pytest.approx(found.focal.item() + 50 * found.box.item(), rel=1e-6)


def test_the_loss_equals_effdets():
    """On random heads and targets, and its gradient too."""
    config = config_for(128)
    generator = torch.Generator().manual_seed(1)
    anchors = Anchors.from_config(config)
    corners = torch.rand(2, 4, 2, generator=generator) * 70
    boxes = torch.cat([corners, corners + 16 + torch.rand(2, 4, 2, generator=generator) * 40], dim=-1)
    classes = torch.randint(0, 3, (2, 4), generator=generator)
    levels = [16, 8, 4, 2, 1]
    heads = [torch.randn(2, 9 * 3, n, n, generator=generator, requires_grad=True) for n in levels]
    codes = [torch.randn(2, 9 * 4, n, n, generator=generator) for n in levels]
    labels = AnchorLabeler(anchors, 3).batch_label_anchors(list(boxes), [c + 1 for c in classes])
    expected = DetectionLoss(config)(heads, codes, *labels)
    flat = torch.cat([h.permute(0, 2, 3, 1).reshape(2, -1, 3) for h in heads], dim=1)
    flat_codes = torch.cat([c.permute(0, 2, 3, 1).reshape(2, -1, 4) for c in codes], dim=1)
    found = losses.detection_loss(flat, flat_codes, targets.assign_targets(boxes, classes, anchors.boxes))
    torch.testing.assert_close(torch.stack(list(found)), torch.stack(list(expected)), rtol=1e-5, atol=1e-6)
    gradients = [
        torch.autograd.grad(total, heads[0], retain_graph=True)[0] for total in (found.total, expected[0])
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_nms_during_training_is_per_class_and_best_first():
    """Anchors 0 and 1 nearly coincide: of one class the better stays, of two both; anchor 2 is far away."""
    anchors = corner_boxes((0, 0, 10, 10), (0, 0, 10, 11), (50, 50, 60, 60))
    logits = torch.full((1, 3, 2), -20.0)
    logits[0, :, 0] = torch.tensor([1.0, 2.0, 0.0])
    logits[0, 0, 1] = 0.5
    found = decode_detections(logits, torch.zeros(1, 3, 4), anchors)[0]
    kept = found[found[:, 4] > 0.1]
    np.testing.assert_allclose(kept[:, 4], 1 / (1 + np.exp([-2.0, -0.5, 0.0])), rtol=1e-5)
    assert kept[:, 5].tolist() == [0, 1, 0]
    assert kept[0, :4].tolist() == [0, 0, 11, 10]


def test_the_learning_rate_climbs_a_line_and_falls_a_cosine():
    """Warm-up of 4 steps: 1/5, 2/5, ... ; the middle of the cosine is (1 + 0.01) / 2, its end 0.01."""
    assert [learning_rate_factor(s, 24, 4) for s in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert learning_rate_factor(14, 24, 4) == pytest.approx(0.505)
    assert learning_rate_factor(24, 24, 4) == pytest.approx(0.01)
