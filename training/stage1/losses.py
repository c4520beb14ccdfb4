"""What Stage 1's generator minimises."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from gm_core.errors import ModelFileError
from training.base_model import frozen
from training.errors import ConfigError
from training.tensor_files import read_checkpoint, read_tensors

# VGG-19 up to the ReLU after conv3_4; None is a 2x2 max pooling.
VGG_WIDTHS = (64, 64, None, 128, 128, None, 256, 256, 256, 256)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PERCEPTUAL_SIDE = 224
MAX_ADAPTIVE_WEIGHT = 1e4


def reconstruction_loss(explained: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean squared (l2) or absolute (l1) error."""
    difference = explained - target
    return difference.square().mean() if kind == "l2" else difference.abs().mean()


def supervised_loss(hdr: Tensor, truth: Tensor, offset: float) -> Tensor:
    """Mean absolute error in stops, with the offset of Eq. (1) taming black.

    Args:
        hdr, truth: [B,3,H,W] linear, 1.0 = SDR white, in the same primaries.
    """
    return ((hdr + offset).log2() - (truth.clamp(min=0) + offset).log2()).abs().mean()


def adaptive_weight(reference_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """Ratio of gradient norms at the last layer: the adversarial term pulls as hard as the reference."""
    ratio = reference_gradient.norm() / adversarial_gradient.norm().clamp(min=1e-8)
    return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT).detach()


class PerceptualLoss(nn.Module):
    """Mean squared difference of VGG-19 relu3_4 features of the two pictures at 224x224.

    Args:
        weights: local file with torchvision's names (`features.0.weight`, ...), safetensors or a
            `weights_only` checkpoint. Nothing is ever fetched.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.features = vgg_features()
        self.features.load_state_dict(_read_vgg(weights, self.features))
        frozen(self.features)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, explained: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of [B,3,H,W] pictures in [0,1]."""
        return (self._look(explained) - self._look(target)).square().mean()

    def _look(self, picture: Tensor) -> Tensor:
        # Nearest, not bilinear: the published objective.
        small = nn.functional.interpolate(
            picture.float(), size=(PERCEPTUAL_SIDE, PERCEPTUAL_SIDE), mode="nearest"
        )
        return self.features((small - self.mean) / self.std)


def vgg_features() -> nn.Sequential:
    """VGG-19's layers 0 to 17, 256 channels at a quarter of the side."""
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG_WIDTHS:
        if width is None:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _read_vgg(path: Path, features: nn.Sequential) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(
            f"perceptual_weights {path} does not exist; give a local VGG-19 file or leave it out"
        )
    try:
        stored = read_tensors(path)[0] if path.suffix == ".safetensors" else read_checkpoint(path)
    except ModelFileError as error:
        raise ConfigError(
            f"perceptual_weights: {error}; expected VGG-19 with torchvision's tensor names, as .safetensors "
            "or as torch.save writes its state_dict"
        ) from error
    wanted = features.state_dict()
    found = {name: stored[f"features.{name}"] for name in wanted if f"features.{name}" in stored}
    if {name: value.shape for name, value in found.items()} != {name: v.shape for name, v in wanted.items()}:
        raise ConfigError(f"perceptual_weights {path} is not a VGG-19 with torchvision's tensor names")
    return found
