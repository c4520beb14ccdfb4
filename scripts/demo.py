"""`make demo`: the shipped photo through the shipped workflow in the real ComfyUI."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from .brightness import brightness, read_exr
from .comfy_client import WorkflowError, run_workflow
from .comfy_server import ServerError, exit_on_sigterm, running_server
from .console import Step
from .host import ROOT, current_host
from .photos import PhotoError, prepare, publish
from .sheet import draw_sheet
from .workflow import sdr_to_hdr

PHOTO = ROOT / "scripts" / "assets" / "rocket.jpg"
OUTPUT = ROOT / "demo_output"
NAMES = {
    "GMHDRSaveUltraHDR": ("{}.jpg", "Ultra HDR JPEG: HDR on HDR screens, the photo elsewhere"),
    "GMHDRSaveEXR": ("{}.exr", "OpenEXR, float32, linear BT.709, 1.0 = SDR white"),
    "GMHDRSaveRadiance": ("{}.hdr", "Radiance"),
    "GMHDRSaveGainMap": ("{}_gm.png", "gain map, 16 bit"),
}


def convert_photo(photo: Path, output: Path, sheet: Path) -> float:
    """Writes all files of one photo; returns the seconds from the ready server to the last of them."""
    with TemporaryDirectory() as folder:
        sdr, drawn = Path(folder) / "photo.png", Path(folder) / f"sheet{sheet.suffix}"
        prepare(photo, sdr)
        with running_server(current_host()) as server:
            start = time.monotonic()
            shutil.copy(sdr, server.base / "input")
            with Step(f"Making HDR of {photo.name}") as step:
                result = run_workflow(server, sdr_to_hdr(sdr.name, "demo"), step.show)
            for node, (name, _) in NAMES.items():
                publish(result.file(node), output / name.format(photo.stem))
            with Image.open(sdr) as picture:
                draw_sheet(picture, read_exr(result.file("GMHDRSaveEXR"))).save(drawn, quality=90)
            publish(drawn, sheet)
            return time.monotonic() - start


def summary(stem: str, output: Path, sheet: Path, seconds: float) -> str:
    lines = [f"{output / name.format(stem)}  {what}" for name, what in NAMES.values()]
    lines.append(f"{sheet}  before and after: open this one first")
    return "\n".join([*lines, f"{brightness(read_exr(output / f'{stem}.exr'))}, {seconds:.1f} s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--sheet", type=Path, help="where the before/after sheet goes, .png or .jpg")
    options = parser.parse_args()
    exit_on_sigterm()
    photo, output = options.photo, options.output
    sheet = options.sheet or output / f"{photo.stem}_sheet.png"
    try:
        seconds = convert_photo(photo, output, sheet)
    except (PhotoError, ServerError, WorkflowError, OSError) as error:
        sys.exit(f"{photo.name}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    print(summary(photo.stem, output, sheet, seconds))


if __name__ == "__main__":
    main()
