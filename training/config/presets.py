"""`paper` reproduces the published recipe with its accidents; `improved` is the dataclasses' defaults."""

from __future__ import annotations

from typing import Any

_PAPER_TRAINING: dict[str, Any] = {
    "random_flip": False,
    "train_batch_size": 16,
    "lr_scheduler": "constant",
    "use_ema": False,
    "checkpoints_total_limit": None,
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "improved": {},
    "paper": {
        "stage1": _PAPER_TRAINING
        | {
            "qmax": 49.0,
            "clamp_peak": True,
            "clip_pixel": False,
            "exposure_per_sample": False,
            "sample_posterior": True,
            "discr_objective": "sigmoid",
            "gradient_penalty": "reals",
            "discr_start_step": 0,
            "alternate_updates": True,
        },
        "stage2": _PAPER_TRAINING
        | {
            "center_crop": True,
            "caption_dropout": 0.0,
            "mask_padding": True,
            "snr_gamma": None,
            "sample_latents": True,
            "match_qmax": False,
        },
        "triples": {"qmax": 49.0},
        "generate": {
            "scheduler": "ddpm",
            "num_inference_steps": 50,
            "resolution": 0,
            "qmax": 99.0,
            "sample_latents": True,
            "paper_radiance": True,
            "sdr_white_nits": 100.0,
        },
    },
}
