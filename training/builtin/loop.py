"""Training for a set time: how long, how fast, how precisely, and the loop of the small nets."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from training.ema import ExponentialMovingAverage

log = logging.getLogger(__name__)
AVERAGE_DECAY = 0.999
LOG_EVERY = 500


def timed_steps(minutes: float) -> Iterator[tuple[int, float]]:
    """Counts steps from 0 until the time is over; beside each the share of the time that has passed.

    No time is no step: the way through all parts of the model without training.
    """
    start, step, seconds = time.monotonic(), 0, 60 * minutes
    while (passed := time.monotonic() - start) < seconds:
        yield step, passed / seconds
        step += 1


def learning_rate(progress: float, step: int, peak: float, *, warmup: int = 50) -> float:
    """Warm-up over some steps, then a cosine to zero over the set time."""
    return peak * min((step + 1) / warmup, 1) * 0.5 * (1 + math.cos(math.pi * progress))


def quick_type() -> torch.dtype:
    """bfloat16 where this CPU computes in it; others take 60 times as long for it as for float32."""
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def quick_networks() -> torch.autocast:
    """Networks compute in `quick_type` within."""
    return torch.autocast("cpu", torch.bfloat16, enabled=quick_type() is torch.bfloat16)


def fit_for(
    net: nn.Module,
    loss_of: Callable[[], tuple[Tensor, Tensor]],
    *,
    minutes: float,
    lr: float,
    weight_decay: float,
    most_gradient: float = math.inf,
) -> None:
    """Trains `net` for `minutes` and leaves it with its averaged weights.

    Args:
        loss_of: draws a batch; the loss and the figure to log.
        most_gradient: norm to which longer gradients are shortened.
    """
    average = ExponentialMovingAverage(dict(net.named_parameters()), AVERAGE_DECAY)
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    running = 0.0
    for step, progress in timed_steps(minutes):
        optimiser.param_groups[0]["lr"] = learning_rate(progress, step, lr, warmup=100)
        loss, figure = loss_of()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(net.parameters(), most_gradient)
        optimiser.step()
        average.update()
        running += float(figure)
        if step % LOG_EVERY == LOG_EVERY - 1:
            log.info("step %d  %.0f %%  %.3f", step + 1, 100 * progress, running / LOG_EVERY)
            running = 0.0
    net.load_state_dict(net.state_dict() | average.shadow)
    net.eval()
