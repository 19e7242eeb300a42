"""The network: effdet's ``tf_efficientdet_d0`` that takes raw pixels and gives flat heads, and the backbone it starts from."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.efficientdet.params import EfficientDetParams
from training.efficientdet.targets import anchors_of
from trashnet.errors import UserError
from trashnet.letterbox import FILL, IMAGENET_MEAN, IMAGENET_STD

ARCHITECTURE = "tf_efficientdet_d0"
BACKBONE = "tf_efficientnet_b0"
HUB_REPOSITORY = "timm/tf_efficientnet_b0.aa_in1k"  # ImageNet-1k with AutoAugment, Google's weights
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backbone:
    """What the backbone began with: ``imagenet`` or ``random``, from where, and the layers that the weights lacked."""

    initialisation: str
    source: str | None = None
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class Teacher(nn.Module):
    """EfficientDet-D0 on raw pixels.

    Takes uint8 RGB ``(B, S, S, 3)``; returns class logits ``(B, A, C)`` and box codes ``(B, A, 4)``, ``(ty,
    tx, th, tw)``, anchors in the order of ``anchors`` ``(A, 4)``, ``(y0, x0, y1, x1)``. Mean and deviation
    are taken off here, on the GPU: a quarter of the bytes travel.
    """

    anchors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, classes: int, image_size: int, drop_path: float = 0.0, batch_norm_momentum: float = 0.1
    ) -> None:
        super().__init__()
        from effdet import EfficientDet, get_efficientdet_config

        config = get_efficientdet_config(ARCHITECTURE)
        config.image_size = (image_size, image_size)
        config.num_classes = classes
        config.backbone_args = {"drop_path_rate": drop_path}
        self.net = EfficientDet(config, pretrained_backbone=False)
        for part in self.net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = batch_norm_momentum
        self.classes = classes
        self.register_buffer("anchors", anchors_of(config), persistent=False)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw heads of a batch of raw images."""
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        logits, codes = self.net(pixels)
        return _flat(logits, self.classes), _flat(codes, 4)


def _flat(levels: list[Tensor], width: int) -> Tensor:
    return torch.cat([one.permute(0, 2, 3, 1).reshape(one.shape[0], -1, width) for one in levels], dim=1)


def anchor_settings(model: Teacher) -> dict[str, Any]:
    """What it takes to make the same anchors elsewhere."""
    config = model.net.config
    return {
        "min_level": int(config.min_level),
        "max_level": int(config.max_level),
        "num_scales": int(config.num_scales),
        "aspect_ratios": [[float(x), float(y)] for x, y in config.aspect_ratios],
        "anchor_scale": float(config.anchor_scale),
    }


def begin(model: Teacher, params: EfficientDetParams) -> Backbone:
    """Load the pretrained backbone that ``params`` ask for: a file of ``weights_dir`` if there is one, else timm's hub.

    Where neither is to be had the backbone stays random, and says so loudly: in the log, and in what is
    returned.
    """
    if params.weights == "none":
        return Backbone(
            "random", notices=("The backbone starts from random weights, as `weights: none` asks.",)
        )
    path, problem = _weights_file(params.weights_dir)
    if path is None:
        notice = (
            f"THE BACKBONE IS RANDOM: no pretrained {BACKBONE} to be had ({problem}). Training from scratch needs far more data and time. "
            f"Put {BACKBONE}*.safetensors into a folder and name it as efficientdet.weights_dir, or set efficientdet.weights: none."
        )
        log.warning(notice)
        return Backbone("random", notices=(notice,))
    return _load_backbone(model, path)


def _weights_file(folder: Path | None) -> tuple[Path | None, str]:
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"efficientdet.weights_dir: {folder} is not a folder")
        if files := sorted(folder.glob(f"{BACKBONE}*.safetensors")):
            return files[0], ""
        return None, f"{folder} holds no {BACKBONE}*.safetensors"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_REPOSITORY, "model.safetensors")), ""
    except OSError as error:  # the hub's own errors are OSErrors, those of a missing network too
        return None, f"{HUB_REPOSITORY}: {str(error).splitlines()[0]}"


def _load_backbone(model: Teacher, path: Path) -> Backbone:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = model.net.backbone.load_state_dict(load_file(path), strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of {BACKBONE}: {str(error).splitlines()[0]}") from None
    missing = tuple(key for key in loaded.missing_keys if not key.endswith("num_batches_tracked"))
    if len(missing) > 20:
        raise UserError(
            f"{path}: not the weights of {BACKBONE}: {len(missing)} layers are missing, such as {missing[0]}"
        )
    if not missing:
        return Backbone("imagenet", path.name)
    notice = f"{path.name} lacks {', '.join(missing)}: initialised at random, the rest of the backbone is pretrained."
    log.warning(notice)
    return Backbone("imagenet", path.name, missing, (notice,))


def load_trained(folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """The trained network in evaluation mode, and its ``model.json``. Raises :class:`UserError` where training has not finished."""
    from safetensors.torch import load_file

    try:
        meta = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no finished training here (model.json is missing). `dvc repro` trains it."
        ) from None
    model = Teacher(len(meta["classes"]), meta["image_size"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), meta


def describe(model: Teacher, names: tuple[str, ...], image_size: int) -> dict[str, Any]:
    """What somebody who runs the network has to know."""
    return {
        "architecture": ARCHITECTURE,
        "classes": list(names),
        "image_size": image_size,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "letterbox": {"position": "top left", "fill": list(FILL)},
        "anchors": anchor_settings(model),
    }
