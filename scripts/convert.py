"""`make convert IN=file-or-folder OUT=folder`: an EXR, an Ultra HDR JPEG and a gain map of every picture.

Pictures are read as 8-bit sRGB, upright; transparency is laid over white, and of an animation the first frame
is taken. Subfolders are kept, hidden ones and links to folders left out. A file that cannot be converted is
named and skipped; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from .brightness import brightness, read_exr
from .comfy_client import WorkflowError, run_workflow
from .comfy_server import Server, ServerError, exit_on_sigterm, running_server
from .console import Step, say
from .host import current_host
from .photos import Job, PhotoError, find_photos, plan, prepare, publish
from .workflow import sdr_to_hdr


def convert(server: Server, job: Job, prefix: str, step: Step) -> list[str]:
    """Converts one picture; returns what its nodes warned of.

    A `prefix` of its own makes ComfyUI save a picture anew that equals the one before.

    Raises:
        PhotoError: the picture cannot be read.
        WorkflowError: a node refused it.
        OSError: its files cannot be written.
    """
    prepared = server.base / "input" / "photo.png"
    prepare(job.photo, prepared)
    workflow = sdr_to_hdr(prepared.name, prefix).without("GMHDRSaveRadiance")
    result = run_workflow(server, workflow, step.show)
    for node, target in job.files().items():
        publish(result.file(node), target)
    step.finish(brightness(read_exr(result.file("GMHDRSaveEXR"))))
    for files in result.files.values():
        for path in files:
            path.unlink()
    return result.warnings


def convert_all(jobs: Sequence[Job]) -> list[Path]:
    """Converts every picture; returns those that failed. ComfyUI is started again if a picture ends it."""
    waiting, failed = deque(enumerate(jobs, 1)), []
    while waiting:
        with running_server(current_host()) as server:
            failed += convert_while_running(server, waiting, len(jobs))
    return failed


def convert_while_running(server: Server, waiting: deque[tuple[int, Job]], total: int) -> list[Path]:
    """Takes pictures off the queue until it is empty or ComfyUI has ended; returns those that failed."""
    failed = []
    while waiting:
        number, job = waiting.popleft()
        try:
            with Step(f"{number}/{total} {job.photo.name}") as step:
                warnings = convert(server, job, f"photo{number}", step)
            for warning in warnings:
                say(f"    {warning}")
        except (PhotoError, WorkflowError, ServerError, OSError) as error:
            say(f"SKIPPED {job.photo}: {error}")
            failed.append(job.photo)
            if isinstance(error, ServerError):
                break
    return failed


def make_writable(folder: Path) -> None:
    """Raises PhotoError, before any picture is converted, where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise PhotoError(f"OUT={folder} cannot be written: {error.strerror}") from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, usage="make convert IN=file-or-folder OUT=folder")
    parser.add_argument("--input", type=Path, required=True, metavar="IN")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    # Path.expanduser stops at names such as ~photo.png.
    options.input = Path(os.path.expanduser(options.input))
    options.output = Path(os.path.expanduser(options.output))
    if not options.input.exists():
        parser.error(f"IN={options.input} does not exist")
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"OUT={options.output} is not a folder")
    return options


def main() -> None:
    options = parse_arguments()
    exit_on_sigterm()
    source, output = options.input.resolve(), options.output.resolve()
    photos = find_photos(source, output)
    if not photos:
        sys.exit(f"There is no picture in {source}.")
    start = time.monotonic()
    try:
        jobs = plan(photos, source, output)
        make_writable(output)
        failed = convert_all(jobs)
    except (PhotoError, ServerError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Pictures converted before are complete.")
    seconds = time.monotonic() - start
    # Names may hold bytes that are no text; unlike standard error, standard output would refuse them.
    shown = os.fsencode(output).decode(errors="backslashreplace")
    print(f"{len(photos) - len(failed)} of {len(photos)} converted to {shown} in {seconds:.0f} s")
    if failed:
        sys.exit("Not converted: " + ", ".join(str(path) for path in failed))


if __name__ == "__main__":
    main()
