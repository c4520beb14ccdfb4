"""`make bench`: prints every figure beside its limit; exit code 1 if one is over it.

The picture is the demo photo at 768x512, the limits are for two CPU cores without other work.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from benchmarks.end_to_end import measure_end_to_end
from benchmarks.figures import report
from benchmarks.stages import measure_stages
from scripts.comfy_server import exit_on_sigterm
from scripts.console import Step
from scripts.demo import PHOTO
from scripts.host import current_host

SIZE = (768, 512)


def main() -> None:
    exit_on_sigterm()
    host = current_host()
    with TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        with Image.open(PHOTO) as image:
            image.resize(SIZE).save(photo)
        figures = measure_end_to_end(host, photo)
        with Step("Every stage by itself"):
            figures += measure_stages(host, photo)
    report(figures)


if __name__ == "__main__":
    main()
