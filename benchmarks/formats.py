"""`make bench-formats`: every acceptance figure of the file formats beside its limit; exit code 1 if one
does not hold. Needs Chromium, exiftool, ffprobe, imagecodecs, OpenEXR, PyAV and OpenImageIO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks import formats_others, formats_robust, formats_ultrahdr
from benchmarks.figures import Figure, report


def figures() -> Iterator[Figure]:
    for group in (formats_ultrahdr, formats_others, formats_robust):
        with TemporaryDirectory() as folder:
            try:
                yield from group.figures(Path(folder))
            except pytest.skip.Exception as missing:
                yield Figure(f"{group.__name__}, the rest: {missing}", "not measured", "all of them", False)


if __name__ == "__main__":
    report(figures())
