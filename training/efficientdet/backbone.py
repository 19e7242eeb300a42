"""Pretrained weights for the teacher's backbone, EfficientNet-B0."""

import logging
from dataclasses import dataclass
from pathlib import Path

from training.efficientdet.model import EfficientDetD0
from training.efficientdet.params import EfficientDetParams
from trashnet.errors import UserError

ARCHITECTURE = "tf_efficientnet_b0"
HUB_REPOSITORY = "timm/tf_efficientnet_b0.aa_in1k"  # ImageNet-1k with AutoAugment, Google's weights
MAX_MISSING_LAYERS = 20  # more, and the file belongs to another network
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """The initial weights of the backbone.

    ``initialisation`` is ``imagenet`` or ``random``; ``missing``: the layers that the source lacks.
    """

    initialisation: str
    source: str | None = None
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def load_backbone(model: EfficientDetD0, params: EfficientDetParams) -> BackboneWeights:
    """Load the backbone weights that ``params.weights`` asks for.

    They come from ``params.weights_dir`` if it is set, else from timm's hub. Where they cannot be had the
    backbone stays random, which is logged as a warning and noted in what is returned.

    Raises:
        UserError: ``params.weights_dir`` is not a folder, or its file holds other weights.
    """
    if params.weights == "none":
        notice = "The backbone starts from random weights, as `weights: none` asks."
        return BackboneWeights("random", notices=(notice,))
    path, problem = _find_weights(params.weights_dir)
    if path is None:
        notice = (
            f"THE BACKBONE IS RANDOM: no pretrained {ARCHITECTURE} to be had ({problem}). "
            f"Training from scratch needs far more data and time. Put {ARCHITECTURE}*.safetensors into a "
            "folder and name it as efficientdet.weights_dir, or set efficientdet.weights: none."
        )
        log.warning(notice)
        return BackboneWeights("random", notices=(notice,))
    return _load_file(model, path)


def _find_weights(folder: Path | None) -> tuple[Path | None, str]:
    """The file, or why there is none."""
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"efficientdet.weights_dir: {folder} is not a folder")
        if files := sorted(folder.glob(f"{ARCHITECTURE}*.safetensors")):
            return files[0], ""
        return None, f"{folder} holds no {ARCHITECTURE}*.safetensors"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(HUB_REPOSITORY, "model.safetensors")), ""
    except OSError as error:  # the hub's own errors are OSErrors, those of a missing network too
        return None, f"{HUB_REPOSITORY}: {str(error).splitlines()[0]}"


def _load_file(model: EfficientDetD0, path: Path) -> BackboneWeights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = model.net.backbone.load_state_dict(load_file(path), strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of {ARCHITECTURE}: {str(error).splitlines()[0]}") from None
    missing = tuple(key for key in loaded.missing_keys if not key.endswith("num_batches_tracked"))
    if len(missing) > MAX_MISSING_LAYERS:
        raise UserError(
            f"{path}: not the weights of {ARCHITECTURE}: {len(missing)} layers are missing, such as "
            f"{missing[0]}"
        )
    if not missing:
        return BackboneWeights("imagenet", path.name)
    lacking = f"{path.name} lacks {', '.join(missing)}"
    notice = f"{lacking}: initialised at random, the rest of the backbone is pretrained."
    log.warning(notice)
    return BackboneWeights("imagenet", path.name, missing, (notice,))
