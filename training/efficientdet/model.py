"""The network: effdet's ``tf_efficientdet_d0``, which takes raw pixels here and returns flat heads."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.efficientdet.targets import config_anchors
from trashnet.errors import UserError
from trashnet.letterbox import FILL, IMAGENET_MEAN, IMAGENET_STD

ARCHITECTURE = "tf_efficientdet_d0"
WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"  # written last: its presence means that the weights are complete


class EfficientDetD0(nn.Module):
    """EfficientDet-D0 on raw pixels.

    Takes uint8 RGB ``(B, S, S, 3)``. Returns class logits ``(B, A, C)`` and box codes ``(B, A, 4)``, (ty, tx,
    th, tw), in the order of ``anchors`` ``(A, 4)``, (y0, x0, y1, x1) in pixels. Mean and deviation are
    applied here, on the GPU: a quarter of the bytes travel.
    """

    anchors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, num_classes: int, image_size: int, drop_path: float = 0.0, batch_norm_momentum: float = 0.1
    ) -> None:
        super().__init__()
        from effdet import EfficientDet, get_efficientdet_config

        config = get_efficientdet_config(ARCHITECTURE)
        config.image_size = (image_size, image_size)
        config.num_classes = num_classes
        config.backbone_args = {"drop_path_rate": drop_path}
        self.net = EfficientDet(config, pretrained_backbone=False)
        for layer in self.net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = batch_norm_momentum
        self.num_classes = num_classes
        self.register_buffer("anchors", config_anchors(config), persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw heads of a batch of raw images."""
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        logits, codes = self.net(pixels)
        return _flatten_levels(logits, self.num_classes), _flatten_levels(codes, 4)


def _flatten_levels(levels: list[Tensor], width: int) -> Tensor:
    flat = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in levels]
    return torch.cat(flat, dim=1)


def load_trained(folder: Path) -> tuple[EfficientDetD0, dict[str, Any]]:
    """The trained network in evaluation mode and the contents of its ``model.json``.

    Raises:
        UserError: Training has not finished.
    """
    from safetensors.torch import load_file

    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no finished training here (model.json is missing). `dvc repro` trains it."
        ) from None
    model = EfficientDetD0(len(description["classes"]), description["image_size"])
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model.eval(), description


def describe_model(model: EfficientDetD0, class_names: tuple[str, ...], image_size: int) -> dict[str, Any]:
    """What one has to know to run the network: classes, preprocessing and anchors."""
    return {
        "architecture": ARCHITECTURE,
        "classes": list(class_names),
        "image_size": image_size,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "letterbox": {"position": "top left", "fill": list(FILL)},
        "anchors": _anchor_settings(model.net.config),
    }


def _anchor_settings(config: Any) -> dict[str, Any]:
    """What it takes to make the same anchors elsewhere."""
    return {
        "min_level": int(config.min_level),
        "max_level": int(config.max_level),
        "num_scales": int(config.num_scales),
        "aspect_ratios": [[float(x), float(y)] for x, y in config.aspect_ratios],
        "anchor_scale": float(config.anchor_scale),
    }
