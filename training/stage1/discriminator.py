"""The patch discriminator of Stage 1 and its objective."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


class Discriminator(nn.Module):
    """Stride-2 convs with spectral norm and instance norm, then one score per patch.

    Args:
        width: channels of the widest layer.
        depth: number of stride-2 convs; 6 turns 512x512 into 8x8 scores.
        sigmoid: squash the scores into (0,1), as published, instead of giving logits.
    """

    def __init__(self, width: int = 512, depth: int = 6, *, sigmoid: bool = False) -> None:
        super().__init__()
        narrowing = max(depth - 3, 3)
        widths = [width // 2 ** max(narrowing - level, 0) for level in range(depth)]
        layers: list[nn.Module] = [_conv(3, widths[0]), nn.LeakyReLU(0.2)]
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [_conv(before, after), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*layers)
        self.shuffle = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.sigmoid = sigmoid

    def forward(self, picture: Tensor) -> Tensor:
        """[B,3,H,W] in [0,1] to scores [B,1,h,w], higher for real pictures."""
        scores = self.shuffle(self.encoder(picture))
        return torch.sigmoid(scores) if self.sigmoid else scores


class DiscriminatorLoss(nn.Module):
    """Hinge loss plus gradient penalty in one forward, so that DDP sees a single use of the network.

    Args:
        discriminator: the network.
        penalty: r1 (squared gradient at reals, Mescheder et al. 2018), interpolates (Gulrajani et al. 2017),
            or reals (two-sided at reals, as published).
        weight: weight of the penalty.
    """

    def __init__(self, discriminator: Discriminator, penalty: str, weight: float) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.penalty = penalty
        self.weight = weight

    def forward(self, fake: Tensor, real: Tensor, mix: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            fake, real: [B,3,H,W] in [0,1].
            mix: [B] in [0,1), where between fake and real the `interpolates` penalty looks.
        """
        with torch.autocast(fake.device.type, enabled=False):
            fake, real = fake.detach().float(), real.detach().float().requires_grad_()
            scores = self.discriminator(real)
            hinge = hinge_loss(self.discriminator(fake), scores)
            return hinge + self.weight * self._penalty(fake, real, scores, mix)

    def _penalty(self, fake: Tensor, real: Tensor, scores: Tensor, mix: Tensor) -> Tensor:
        if self.penalty == "interpolates":
            between = torch.lerp(fake, real.detach(), mix.to(fake).view(-1, 1, 1, 1)).requires_grad_()
            return (gradient_norm(self.discriminator(between), between) - 1).square().mean()
        norm = gradient_norm(scores, real)
        return (norm - 1).square().mean() if self.penalty == "reals" else norm.square().mean() / 2


def hinge_loss(fake: Tensor, real: Tensor) -> Tensor:
    """mean(relu(1 + D(fake)) + relu(1 - D(real)))."""
    return (torch.relu(1 + fake) + torch.relu(1 - real)).mean()


def gradient_norm(scores: Tensor, pictures: Tensor) -> Tensor:
    """[B] Euclidean norm of the summed scores' gradient, differentiable again."""
    (gradient,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    # The square root has no gradient at 0, where every penalty has one.
    return gradient.flatten(1).square().sum(dim=1).add(1e-12).sqrt()


def _conv(channels_in: int, channels_out: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1))
