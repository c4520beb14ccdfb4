"""The border between ComfyUI's IMAGE [B,H,W,C] and gm_core's [B,C,H,W]."""

from __future__ import annotations

import torch

from ..gm_core.errors import GainMapError
from ..gm_core.resample import LATENT_STRIDE


def to_bchw(image: torch.Tensor, name: str) -> torch.Tensor:
    """IMAGE of any dtype, device and 1, 3 or 4 channels -> float32 [B,3,H,W] on the CPU.

    Gray becomes three equal channels, alpha is left out. The input is never written to.

    Raises:
        GainMapError: not a picture batch.
    """
    return loaded(bchw_view(image, name))


def loaded(pictures: torch.Tensor) -> torch.Tensor:
    """Contiguous float32 on the CPU."""
    return pictures.to("cpu", torch.float32).contiguous()


def bchw_view(image: torch.Tensor, name: str) -> torch.Tensor:
    """`to_bchw` without its copy: a view of the input, of its dtype and on its device."""
    if not isinstance(image, torch.Tensor) or image.ndim != 4:
        raise GainMapError(f"{name}: expected a picture batch [B,H,W,C], found {shape_of(image)}.")
    if 0 in image.shape:
        raise GainMapError(f"{name}: the picture batch is empty, {shape_of(image)}.")
    channels = image.shape[-1]
    if channels not in (1, 3, 4):
        raise GainMapError(f"{name}: expected 1, 3 or 4 channels, found {channels}. Connect an IMAGE.")
    if not (image.is_floating_point() or image.dtype == torch.bool):
        raise GainMapError(
            f"{name}: the picture holds {image.dtype} values; expected floating point, where 1.0 is white."
        )
    return image.detach().movedim(-1, 1)[:, :3].expand(-1, 3, -1, -1)


def to_sdr(picture: torch.Tensor, name: str) -> torch.Tensor:
    """[B,3,H,W] in [0,1] for models and filters, which look at more than one pixel.

    Raises:
        GainMapError: pixels that are no numbers.
    """
    if not torch.isfinite(picture).all():
        raise GainMapError(
            f"{name}: the picture holds NaN or infinite pixels, which would spread over all of it. "
            "Mend the node that makes them, often a VAE or upscaler in 16 bits."
        )
    return picture.clamp(0.0, 1.0)


def to_image(picture: torch.Tensor) -> torch.Tensor:
    """[B,C,H,W] -> IMAGE [B,H,W,C], float32, contiguous, on the CPU."""
    return picture.detach().to("cpu", torch.float32).movedim(1, -1).contiguous()


def shape_of(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def same_batch(**pictures: torch.Tensor) -> list[torch.Tensor]:
    """Single pictures repeated (as views) to the batch size of the others.

    Raises:
        GainMapError: two different batch sizes above 1.
    """
    size = max(len(picture) for picture in pictures.values())
    if any(len(picture) not in (1, size) for picture in pictures.values()):
        found = ", ".join(f"{name} has {len(picture)}" for name, picture in pictures.items())
        raise GainMapError(f"Batch sizes differ: {found}. Give each the same number of pictures, or one.")
    return [picture.expand(size, *picture.shape[1:]) for picture in pictures.values()]


def check_same_size(**pictures: torch.Tensor) -> None:
    """Raises GainMapError unless all [B,C,H,W] have the same height and width."""
    if len({picture.shape[-2:] for picture in pictures.values()}) > 1:
        found = ", ".join(f"{name} is {size_of(picture)}" for name, picture in pictures.items())
        raise GainMapError(f"Picture sizes differ: {found}. Resize one of them.")


def size_of(picture: torch.Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def fit_to_sdr(gain_map: torch.Tensor, sdr: torch.Tensor) -> torch.Tensor:
    """Undoes the centred crop to multiples of 8 that a VAE encode makes, by repeating the border.

    Raises:
        GainMapError: the sizes differ by more than that crop.
    """
    missing = [s - g for s, g in zip(sdr.shape[-2:], gain_map.shape[-2:], strict=True)]
    if missing == [0, 0]:
        return gain_map
    if not all(0 <= m < LATENT_STRIDE for m in missing):
        raise GainMapError(
            f"The gain map is {size_of(gain_map)} but the SDR picture is {size_of(sdr)}. "
            "Connect the SDR picture to 'guide' of GM VAE Decode, which resizes the gain map along its edges."
        )
    top, left = missing[0] // 2, missing[1] // 2
    padding = (left, missing[1] - left, top, missing[0] - top)
    return torch.nn.functional.pad(gain_map, padding, mode="replicate")


def to_mask(mask: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """MASK [B,H,W] or [H,W] -> float32 [B,1,H,W] in [0,1] on the CPU.

    A mask of nothing takes the size of `pictures`: core's LoadImage gives one of 64x64 for every picture
    without transparency.
    """
    picture = mask.detach().to("cpu", torch.float32)
    picture = picture.reshape(-1, 1, *picture.shape[-2:]).clamp(0.0, 1.0)
    if picture.shape[-2:] != pictures.shape[-2:] and not picture.any():
        return picture.new_zeros(1, 1, 1, 1).expand(len(picture), 1, *pictures.shape[-2:])
    return picture
