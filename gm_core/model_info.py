"""What a model file says about its gain maps, in the string metadata of a safetensors header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from .errors import GainMapError, ModelFileError
from .gain_coding import Encoding, GainCoding
from .gain_map import GainMapSpec

Gamut = Literal["bt709", "bt2020"]
Prediction = Literal["eps", "v", "x0"]
InputOrder = Literal["sdr_gm", "gm_sdr"]

LARGEST_OWN_SIDE = 768
"""Short side in pixels at which models that state none work on larger pictures."""
DEFAULT_STEPS = 30
"""Sampling steps of models that state none."""
METADATA_PREFIX = "gmhdr."
"""What the names of our entries, and of tensors beside the network's, start with in any file."""
QMAX_KEY = METADATA_PREFIX + "qmax"
"""Entry of every file that says what its gain maps mean."""
VAE_OUTPUT_KEY = METADATA_PREFIX + "vae_output"
"""Entry of VAEs and their adapters: what follows the decoder."""
SIGMOID_OUTPUT = "sigmoid"
"""Its value where the sigmoid of the raw output is the map: hosts that rescale and clamp must not."""
TEXT_CONTEXT_KEY = METADATA_PREFIX + "text_context"
"""Tensor in the file of a UNet: the text context [1,tokens,width] it takes where there is no prompt."""
_CHOICES = {"gamut": get_args(Gamut), "prediction": get_args(Prediction), "input_order": get_args(InputOrder)}
_COUNT_LIMITS = {"steps": 1000, "working_side": 16384}
_KINDS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class GainMapModelInfo:
    """Everything needed to use a gain-map model; the defaults are those of the paper's checkpoints.

    Args:
        spec: constants of Eq. (1) the model was trained with.
        coding: how the model's picture stores the gain map.
        gamut: primaries of the HDR that Eq. (1) gives.
        prediction: what the UNet predicts.
        input_order: which latent comes first in the UNet's input channels on disk.
        steps: recommended sampling steps, 0 = not stated.
        working_side: short side in pixels the model wants, 0 = the picture's own.
        training: free text on data and settings.

    Raises:
        GainMapError: a value is not among its choices, out of range, or the coding exceeds qmax.
    """

    spec: GainMapSpec = field(default_factory=GainMapSpec)
    coding: GainCoding = field(default_factory=GainCoding)
    gamut: Gamut = "bt2020"
    prediction: Prediction = "eps"
    input_order: InputOrder = "sdr_gm"
    steps: int = 0
    working_side: int = 0
    training: str = ""

    def side_for(self, height: int, width: int) -> int:
        """Short side in pixels at which the model works on a picture of this size."""
        return self.working_side or min(height, width, LARGEST_OWN_SIDE)

    def steps_for(self, wanted: int = 0) -> int:
        """Sampling steps: as wanted, where that is 0 as the model recommends."""
        return wanted or self.steps or DEFAULT_STEPS

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise GainMapError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        for name, limit in _COUNT_LIMITS.items():
            if not 0 <= getattr(self, name) <= limit:
                raise GainMapError(f"{name} is {getattr(self, name)}; expected 0 to {limit}")
        peak = 2.0**self.coding.log2_max
        if peak > (1 + self.spec.qmax) * 1.001:
            raise GainMapError(f"log2_max is a gain of {peak:g}, above the 1 + qmax = {1 + self.spec.qmax:g}")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None) -> GainMapModelInfo:
        """Read the `gmhdr.*` entries of a safetensors header.

        Args:
            metadata: the header's string metadata; None or absent entries mean the paper's defaults.

        Raises:
            ModelFileError: an entry is not a number, not one of its choices, or out of range.
        """
        stated = _Stated(metadata or {})
        try:
            return cls(
                spec=GainMapSpec(
                    qmax=stated.number("qmax", GainMapSpec.qmax),
                    gamma=stated.number("gamma", GainMapSpec.gamma),
                    offset=stated.number("offset", GainMapSpec.offset),
                ),
                coding=GainCoding(
                    encoding=cast(Encoding, stated.text("encoding", GainCoding.encoding)),
                    log2_min=stated.number("log2_min", GainCoding.log2_min),
                    log2_max=stated.number("log2_max", GainCoding.log2_max),
                ),
                gamut=cast(Gamut, stated.text("gamut", cls.gamut)),
                prediction=cast(Prediction, stated.text("prediction", cls.prediction)),
                input_order=cast(InputOrder, stated.text("input_order", cls.input_order)),
                steps=stated.count("steps"),
                working_side=stated.count("working_side"),
                training=stated.text("training", ""),
            )
        except GainMapError as error:
            raise ModelFileError(
                f"unusable gmhdr metadata: {error}; re-export the model or correct its header"
            ) from error

    def to_metadata(self) -> dict[str, str]:
        """String metadata for a safetensors header; `from_metadata` gives this object back."""
        values = {
            "gamut": self.gamut,
            "prediction": self.prediction,
            "input_order": self.input_order,
            "steps": self.steps,
            "working_side": self.working_side,
            "training": self.training,
        }
        return {**self.map_metadata(), **_entries(values)}

    def map_metadata(self) -> dict[str, str]:
        """Those entries of `to_metadata` that a gain map by itself needs, for pictures of one."""
        return _entries(
            {
                "qmax": self.spec.qmax,
                "gamma": self.spec.gamma,
                "offset": self.spec.offset,
                "encoding": self.coding.encoding,
                "log2_min": self.coding.log2_min,
                "log2_max": self.coding.log2_max,
            }
        )


def _entries(values: Mapping[str, object]) -> dict[str, str]:
    return {METADATA_PREFIX + name: str(value) for name, value in values.items()}


class _Stated:
    def __init__(self, metadata: Mapping[str, str]) -> None:
        self.metadata = metadata

    def text(self, name: str, default: str) -> str:
        return self.metadata.get(METADATA_PREFIX + name, default)

    def number(self, name: str, default: float) -> float:
        return float(self._parsed(name, float, default))

    def count(self, name: str) -> int:
        return int(self._parsed(name, int, 0))

    def _parsed(self, name: str, kind: type[int] | type[float], default: float) -> float:
        stated = self.metadata.get(METADATA_PREFIX + name)
        try:
            return default if stated is None else kind(stated)
        except ValueError as error:
            raise GainMapError(f"{name} is {stated!r:.40}; expected {_KINDS[kind]}") from error
