"""What can go wrong in a training run, by who has to act."""

from __future__ import annotations

from gm_core.errors import GainMapError


class ConfigError(GainMapError):
    """The configuration cannot be used as written."""


class DatasetError(GainMapError):
    """A data source cannot be opened, or too many of its rows are unusable."""


class RejectedSample(GainMapError):  # noqa: N818 - a verdict on data, not a failure
    """One row or picture is unusable. `reason` is a short slug that reports count by."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CheckpointError(GainMapError):
    """A checkpoint could not be written or read back."""


class NonFiniteLossError(GainMapError):
    """The loss or its gradient became NaN or infinite and the policy says to stop."""


class TrainingInterrupted(Exception):  # noqa: N818 - a request, not an error
    """A signal asked the run to stop; the state was saved first."""
