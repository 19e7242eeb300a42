"""The detection loss: focal for classes, Huber for boxes (Tan et al. 2020, EfficientDet, section 5.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor

from training.efficientdet.targets import Targets

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 1.5  # Tan et al. 2020, section 5.1
# As in the authors' implementation; box codes of matched anchors are about 0.1 to 0.2.
HUBER_DELTA, BOX_WEIGHT = 0.1, 50.0


class Losses(NamedTuple):
    """Three scalars; ``total = focal + 50 box``."""

    total: Tensor
    focal: Tensor
    box: Tensor


def focal_loss(
    logits: Tensor, classes: Tensor, alpha: float = FOCAL_ALPHA, gamma: float = FOCAL_GAMMA
) -> Tensor:
    """Focal loss summed over every anchor and class (Lin et al. 2017, equation 5).

    ``-alpha_t (1 - p_t)^gamma log p_t``. Every entry is first counted as background, then the few positive
    ones are exchanged: no one-hot tensor, and no wait for the GPU.

    Args:
        logits: ``(B, A, C)``.
        classes: int64 ``(B, A)``, the class index of each anchor's box, -1 for background.
        alpha: Weight of a positive; a negative has ``1 - alpha``.
        gamma: How strongly confident right answers are discounted.

    Returns:
        A scalar.
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


def box_loss(codes: Tensor, targets: Targets, delta: float = HUBER_DELTA) -> Tensor:
    """Huber loss (Huber 1964) summed over the box codes of matched anchors.

    ``e^2 / 2`` for errors up to ``delta``, ``delta (|e| - delta / 2)`` beyond.

    Args:
        codes: ``(B, A, 4)``, the network's.
        targets: What they should be.
        delta: The error up to which the loss is quadratic.

    Returns:
        A scalar.
    """
    losses = F.huber_loss(codes.float(), targets.codes, reduction="none", delta=delta)
    return torch.where((targets.classes >= 0)[..., None], losses, 0.0).sum()


def detection_loss(logits: Tensor, codes: Tensor, targets: Targets) -> Losses:
    """Both losses divided by the number of matched anchors in the batch plus one, so that it is never 0.

    Args:
        logits: ``(B, A, C)``.
        codes: ``(B, A, 4)``, (ty, tx, th, tw).
        targets: What both should be.

    Returns:
        The losses, scalars.
    """
    divisor = (targets.classes >= 0).sum() + 1.0
    focal = focal_loss(logits, targets.classes) / divisor
    box = box_loss(codes, targets) / (4 * divisor)
    return Losses(focal + BOX_WEIGHT * box, focal, box)
