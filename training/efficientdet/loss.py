"""The detection loss: focal loss for the classes, Huber loss for the boxes (Tan et al. 2020, EfficientDet, section 5.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

from training.efficientdet.targets import Targets

ALPHA, GAMMA = 0.25, 1.5  # Tan et al. 2020, section 5.1
DELTA, BOX_WEIGHT = (
    0.1,
    50.0,
)  # as in the authors' implementation: box codes of matched anchors are about 0.1 to 0.2


class Loss(NamedTuple):
    """Three scalars; ``total = focal + 50 box``."""

    total: Tensor
    focal: Tensor
    box: Tensor


def focal_loss(logits: Tensor, classes: Tensor, alpha: float = ALPHA, gamma: float = GAMMA) -> Tensor:
    """Summed focal loss, ``-alpha_t (1 - p_t)^gamma log p_t`` over every anchor and class (Lin et al. 2017, eq. 5).

    ``logits``: ``(B, A, C)``; ``classes``: int64 ``(B, A)``, the one class an anchor answers for, or -1.
    Every entry is first counted as background, then the few positive ones are exchanged: no one-hot tensor,
    no waiting for the GPU.
    """
    logits = logits.float()
    background = ((1 - alpha) * logits.sigmoid() ** gamma * F.softplus(logits)).sum()
    positive = classes >= 0
    chosen = logits.gather(2, classes.clamp(min=0)[..., None]).squeeze(2)
    probability = chosen.sigmoid()
    exchange = alpha * (1 - probability) ** gamma * F.softplus(-chosen) - (
        1 - alpha
    ) * probability**gamma * F.softplus(chosen)
    return background + torch.where(positive, exchange, 0.0).sum()


def box_loss(codes: Tensor, targets: Targets, delta: float = DELTA) -> Tensor:
    """Summed Huber loss of the matched anchors' box codes (Huber 1964): ``e^2 / 2`` up to ``delta``, ``delta (|e| - delta / 2)`` beyond."""
    losses = F.huber_loss(codes.float(), targets.codes, reduction="none", delta=delta)
    return torch.where((targets.classes >= 0)[..., None], losses, 0.0).sum()


def detection_loss(logits: Tensor, codes: Tensor, targets: Targets) -> Loss:
    """Both losses over the positive anchors of the batch, plus one so that a batch of backgrounds divides by something."""
    positives = (targets.classes >= 0).sum() + 1.0
    focal = focal_loss(logits, targets.classes) / positives
    box = box_loss(codes, targets) / (4 * positives)
    return Loss(focal + BOX_WEIGHT * box, focal, box)
