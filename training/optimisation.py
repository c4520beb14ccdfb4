"""One optimiser with its learning-rate curve, gradient clipping, averaging and saved state."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from training.config.base import TrainConfig
from training.ema import ExponentialMovingAverage
from training.errors import ConfigError
from training.tensor_files import save_tensors

StepCount = int
POLYNOMIAL_POWER = 1.0


def learning_rate_curve(kind: str, *, warmup: int, total: int) -> Callable[[StepCount], float]:
    """Factor on the peak learning rate at a step.

    Args:
        kind: constant (no ramp), constant_with_warmup, linear, cosine or polynomial.
        warmup: steps of linear ramp.
        total: steps of the run, at which the falling curves reach 0.
    """

    def factor(step: StepCount) -> float:
        if kind == "constant":
            return 1.0
        if step < warmup:
            return (step + 1) / warmup
        if kind == "constant_with_warmup":
            return 1.0
        remaining = max(0.0, (total - step) / max(1, total - warmup))
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (1 - remaining)))
        return remaining**POLYNOMIAL_POWER

    return factor


def build_optimiser(
    parameters: list[nn.Parameter], rate: float, config: TrainConfig
) -> torch.optim.Optimizer:
    """AdamW, or bitsandbytes' 8-bit AdamW.

    Raises: ConfigError when the 8-bit optimiser is asked for and bitsandbytes is missing.
    """
    arguments: dict[str, Any] = {
        "lr": rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if not config.use_8bit_adam:
        return torch.optim.AdamW(parameters, **arguments)
    try:
        import bitsandbytes  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError("use_8bit_adam needs bitsandbytes: pip install bitsandbytes") from error
    return bitsandbytes.optim.AdamW8bit(parameters, **arguments)


class Optimisation:
    """Applies gradients to one set of named parameters and keeps what must survive a restart.

    Args:
        accelerator: knows processes and precision.
        module: its trainable parameters are optimised.
        rate: peak learning rate.
        total_steps: length of the run.
        auxiliary: a second network in float32, neither averaged nor part of loss scaling (a loss scaler
            serves one optimiser); its loss goes through plain `backward`.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        module: nn.Module,
        rate: float,
        config: TrainConfig,
        total_steps: int,
        auxiliary: bool = False,
    ) -> None:
        self.accelerator = accelerator
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.max_grad_norm = config.max_grad_norm
        world = accelerator.num_processes * config.train_batch_size * config.gradient_accumulation_steps
        self.rate = rate * world if config.scale_lr else rate
        self.curve = learning_rate_curve(
            config.lr_scheduler, warmup=config.lr_warmup_steps, total=total_steps
        )
        optimiser = build_optimiser(list(self.parameters.values()), self.rate, config)
        self.scaler = None if auxiliary else accelerator.scaler
        self.auxiliary = auxiliary
        self.optimiser = optimiser if auxiliary else accelerator.prepare_optimizer(optimiser)
        self.ema: ExponentialMovingAverage | None = None
        if config.use_ema and not auxiliary:
            device = torch.device("cpu") if config.offload_ema else None
            self.ema = ExponentialMovingAverage(self.parameters, config.ema_decay, device)

    def apply(self, step: StepCount) -> dict[str, float]:
        """Clip, step and average. A non-finite gradient leaves every weight as it was.

        Returns: `grad_norm` before clipping, `lr`, and `skipped` (1 when the update was left out).
        """
        rate = self.rate * self.curve(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Clipping through accelerate also takes the loss scale out of the gradients.
        clip: Any = nn.utils.clip_grad_norm_ if self.auxiliary else self.accelerator.clip_grad_norm_
        norm = float(clip(list(self.parameters.values()), self.max_grad_norm))
        skipped = not math.isfinite(norm)
        if self.scaler is not None:
            self.optimiser.step()
            skipped = self.accelerator.optimizer_step_was_skipped
        elif not skipped:
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None and not skipped:
            self.ema.update()
        return {"grad_norm": norm, "lr": rate, "skipped": float(skipped)}

    def save(self, folder: Path, name: str) -> None:
        """Write `<name>.safetensors` (tensors) and `<name>.json` (everything else)."""
        state = self.optimiser.state_dict()["state"]
        names = list(self.parameters)
        # Copies, since the 8-bit optimiser shares its tables between parameters and safetensors refuses that.
        entries = {f"{names[index]}|{path}": v for index, e in state.items() for path, v in _flat(e)}
        tensors = {
            path: value.detach().to("cpu", copy=True).contiguous()
            for path, value in entries.items()
            if isinstance(value, Tensor)
        }
        scalars = {path: value for path, value in entries.items() if path not in tensors}
        if self.ema is not None:
            tensors |= {f"{key}|ema": value.cpu().contiguous() for key, value in self.ema.shadow.items()}
        save_tensors(tensors, folder / f"{name}.safetensors")
        extra = {"scalars": scalars, "ema_updates": self.ema.updates if self.ema else 0}
        if self.scaler is not None:
            extra["scaler"] = self.scaler.state_dict()
        (folder / f"{name}.json").write_text(json.dumps(extra), encoding="utf-8")

    def load(self, folder: Path, name: str) -> None:
        """Read back what `save` wrote; the parameters have to be loaded before."""
        tensors = load_file(folder / f"{name}.safetensors")
        extra = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        index = {key: position for position, key in enumerate(self.parameters)}
        state = self.optimiser.state_dict()
        state["state"] = _grouped(tensors | extra["scalars"], index)
        self.optimiser.load_state_dict(state)
        if self.ema is not None:
            shadow = {key.removesuffix("|ema"): v for key, v in tensors.items() if key.endswith("|ema")}
            # A run that kept none so far begins its average at the weights it has now.
            self.ema.load(shadow or self.parameters, extra["ema_updates"])
        if self.scaler is not None and "scaler" in extra:
            self.scaler.load_state_dict(extra["scaler"])


def _flat(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Leaves by path; the 8-bit optimiser nests its quantisation tables one level down."""
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}|{path}", leaf) for path, leaf in _flat(value))
        else:
            yield key, value


def _grouped(entries: Mapping[str, Any], index: Mapping[str, int]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for label, value in entries.items():
        name, *path, key = label.split("|")
        if key != "ema":
            place = state.setdefault(index[name], {})
            for part in path:
                place = place.setdefault(part, {})
            place[key] = value
    return state
