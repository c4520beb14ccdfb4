"""Widget values as a running node gets them.

ComfyUI checks numbers that were typed, but none that come through a link, and 0.3.75 checks no choice that
an API prompt makes: a misspelt one would be silently taken for another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from comfy_api.latest import io

from ..gm_core.errors import GainMapError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def checked(execute: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A node's `execute`, which raises GainMapError where a value is none that its widget can have."""

    @functools.wraps(execute)
    def run(*arguments: Arguments.args, **values: Arguments.kwargs) -> Result:
        node: Any = arguments[0]
        schema = node.define_schema()
        check_values(schema, values)
        return execute(*arguments, **{**values, **whole_numbers(schema, values)})

    return run


def check_values(schema: io.Schema, values: Mapping[str, Any]) -> None:
    for widget in schema.inputs:
        if widget.id not in values:
            continue
        value = values[widget.id]
        if isinstance(widget, io.Combo.Input) and not widget.upload:
            check_choice(widget, value)
        elif isinstance(widget, (io.Float.Input, io.Int.Input)):
            check_number(widget, value)
        elif isinstance(widget, io.String.Input) and not isinstance(value, str):
            raise GainMapError(f"{widget.id}: expected text, found {type(value).__name__}.")
        elif isinstance(widget, io.Boolean.Input) and not isinstance(value, (Integral, np.bool_)):
            raise GainMapError(f"{widget.id} is {value!r:.80}; expected true or false.")


def check_choice(widget: io.Combo.Input, value: Any) -> None:
    if value not in widget.options:
        choices = ", ".join(map(str, widget.options))
        raise GainMapError(f"{widget.id} is {value!r:.80}; expected one of: {choices}.")


def check_number(widget: io.Float.Input | io.Int.Input, value: Any) -> None:
    # Written so that NaN, which is below and above nothing, fails too.
    if not (is_number(value) and widget.min <= value <= widget.max):
        raise GainMapError(
            f"{widget.id} is {value!r:.80}; expected a number from {widget.min} to {widget.max}."
        )
    if isinstance(widget, io.Int.Input) and value != int(value):
        raise GainMapError(f"{widget.id} is {value!r:.80}; expected a whole number.")


def whole_numbers(schema: io.Schema, values: Mapping[str, Any]) -> dict[str, int]:
    """Values of whole-number widgets as int: nodes that compute hand on 2.0 for 2, which torch refuses."""
    names = (widget.id for widget in schema.inputs if isinstance(widget, io.Int.Input))
    return {name: int(values[name]) for name in names if name in values}


def is_number(value: object) -> bool:
    """Also for numpy's scalars."""
    return isinstance(value, Real)
