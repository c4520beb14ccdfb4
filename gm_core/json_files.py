"""JSON files that come with models and data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import GainMapError, ModelFileError


def read_json(path: Path, *, remedy: str, error: type[GainMapError] = ModelFileError) -> dict[str, Any]:
    """The object in a JSON file, by name.

    Args:
        remedy: what to do about a file that cannot be used; the end of the message.
        error: its type.

    Raises:
        GainMapError: of the type given; the file is unreadable, damaged, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise error(f"{path} is not readable ({fault.strerror or fault}); {remedy}") from fault
    except (ValueError, RecursionError) as fault:
        raise error(f"{path} is not readable as JSON ({fault}); {remedy}") from fault
    if not isinstance(content, dict):
        raise error(f"{path} holds a JSON {type(content).__name__}, expected an object; {remedy}")
    return content
