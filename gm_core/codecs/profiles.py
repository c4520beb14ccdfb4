"""Pictures whose colours an ICC profile describes, alone or beside colour tags."""

from __future__ import annotations

import logging

import numpy as np
import torch

from ..color import linear_to_srgb
from .icc import IccProfile
from .image import HDRImage
from .sdr_base import hdr_signal, known_profile, use_known_primaries
from .signal import HLG, PQ, UNSPECIFIED, picture_of

logger = logging.getLogger(__name__)


def picture_of_profile(
    codes: np.ndarray,
    profile: bytes | IccProfile,
    *,
    primaries: int = UNSPECIFIED,
    transfer: int = UNSPECIFIED,
) -> HDRImage:
    """The picture of a full-range RGB signal [H,W,3] in [0,1], or grey as three equal channels, with a
    profile, empty if it has none.

    Colour tags count before the profile where they say PQ or HLG, in the profile or beside it: matrix and
    curves cannot express those. Elsewhere the profile counts.

    Raises:
        ImageReadError: there is no profile and the tags are unusable.
    """
    if transfer not in (PQ, HLG):
        stated = None if isinstance(profile, IccProfile) else hdr_signal(profile)
        if stated is not None:
            return picture_of(codes, primaries=stated[0], transfer=stated[1])
        found = profile if isinstance(profile, IccProfile) else known_profile(profile)
        if found is not None:
            return _by_curves(codes, found)
        if profile:
            logger.warning("its colour profile is none of matrix and curves; its tags or sRGB count instead")
    return picture_of(codes, primaries=primaries, transfer=transfer)


def _by_curves(codes: np.ndarray, profile: IccProfile) -> HDRImage:
    hdr, sdr = np.empty(codes.shape, np.float32), codes.astype(np.float32)
    for channel, curve in enumerate(profile.curves):
        nearest = np.rint(np.clip(codes[..., channel], 0, 1) * np.float32(65535)).astype(np.uint16)
        hdr[..., channel] = curve[nearest]
    if not profile.has_srgb_curve:
        sdr = linear_to_srgb(torch.from_numpy(np.clip(hdr, 0, 1))).numpy()
    picture = HDRImage(hdr, sdr=sdr, primaries=profile.primaries or "bt709")
    use_known_primaries(picture, profile)
    return picture
