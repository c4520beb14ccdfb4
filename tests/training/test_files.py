"""Files of the trainer: an earlier one is lost to nothing but a whole new one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.errors import ConfigError
from training.files import only_writer
from training.generate import find_pictures
from training.trackers import JsonLines

ROOT = Path(__file__).resolve().parents[2]
# Forks a worker, as a data loader does, and is killed in the block. Both end with their input.
HOLDER = """
import os, pathlib, sys
from training.files import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    if os.fork():
        print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl")
def test_a_folder_belongs_to_one_run_until_that_ends_or_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another run is writing into .*choose another output_dir"):
            with only_writer(tmp_path):
                pass
        holder.kill()
        holder.wait()
        with only_writer(tmp_path):
            pass


def test_names_of_many_pictures_are_found_in_a_time_that_grows_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number:06d}.png" for number in range(40_000)]
    monkeypatch.setattr("training.generate.pictures_below", lambda folder: files)
    start = time.process_time()
    found = find_pictures(tmp_path)
    # Each of them compared with each took a minute.
    assert len(found) == len(files) and time.process_time() - start < 15


def test_a_mistyped_picture_is_not_called_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"photo\.jgp does not exist; expected a picture or a folder"):
        find_pictures(tmp_path / "photo.jgp")


def test_a_log_knows_each_step_of_the_run_once_and_what_was_said_before_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    # Killed while writing behind its checkpoint of step 2, and again before the next one.
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    for steps in ((3, 4), (3, 4, 5)):
        log = JsonLines(path, done=2)
        for step in steps:
            log.scalars(step, {"loss": 0.5})
        log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]
    aside = (tmp_path / "metrics-superseded.jsonl").read_text().splitlines()
    assert aside == ['{"step": 3}', '{"step": 4, "lo', *(f'{{"step": {n}, "loss": 0.5}}' for n in (3, 4))]


def test_a_log_keeps_the_steps_before_the_batches_grew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    # Twice the batch from step 4 on, which is 2 now.
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4, 3, 4, 5)))
    JsonLines(path, done=4).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 3, 4]
