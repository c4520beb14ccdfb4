"""Small services of the running ComfyUI."""

from __future__ import annotations

import comfy.model_management
import comfy.samplers
import comfy.utils
from comfy.cli_args import args


def sampler_names() -> list[str]:
    return list(comfy.samplers.SAMPLER_NAMES)


def scheduler_names() -> list[str]:
    return list(comfy.samplers.SCHEDULER_NAMES)


def metadata_enabled() -> bool:
    """False when ComfyUI was started with --disable-metadata."""
    return not args.disable_metadata


def check_interrupted() -> None:
    """Raises ComfyUI's interrupt exception if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> comfy.utils.ProgressBar:
    return comfy.utils.ProgressBar(total)
