"""`make bench-formats`: every acceptance figure of the file formats beside its limit; exit code 1 if one
does not hold. Needs Chromium, exiftool, ffprobe, imagecodecs, OpenEXR, PyAV and OpenImageIO."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks import formats_others, formats_robust, formats_ultrahdr


def main() -> None:
    failed = 0
    print(f"{'':<58}{'measured':>14}{'limit':>16}")
    for group in (formats_ultrahdr, formats_others, formats_robust):
        with TemporaryDirectory() as folder:
            try:
                for figure in group.figures(Path(folder)):
                    print(figure, flush=True)
                    failed += not figure.ok
            except pytest.skip.Exception as missing:
                print(f"{group.__name__}: the rest was not measured: {missing}  FAIL")
                failed += 1
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
