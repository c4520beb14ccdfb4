"""An interrupted build of the host is never taken for a complete one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.cache import build_once, locked
from scripts.console import CommandError, Step, run
from scripts.install import HOST_LOCK, TEST_LOCK

ROOT = Path(__file__).resolve().parents[2]
CHILD = "import sys, time; time.sleep(1); open(sys.argv[1], 'w').close()"
KILLED_BUILDER = """
import os, signal, subprocess, sys
from pathlib import Path
from scripts.cache import locked
with locked(Path(sys.argv[1])):
    subprocess.Popen([sys.executable, "-c", *sys.argv[2:]], close_fds=False)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_build_runs_once(tmp_path: Path) -> None:
    built: list[Path] = []
    build_once(tmp_path / "host", built.append)
    build_once(tmp_path / "host", built.append)
    assert built == [tmp_path / "host"]


def test_what_a_failed_build_left_is_removed(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path / "host", interrupted)
    seen: list[list[Path]] = []
    build_once(tmp_path / "host", lambda folder: seen.append(list(folder.iterdir())))
    assert seen == [[]]


def test_the_lock_outlives_a_killed_builder_while_its_child_writes(tmp_path: Path) -> None:
    lock, written = tmp_path / "host.lock", tmp_path / "written"
    subprocess.run([sys.executable, "-c", KILLED_BUILDER, str(lock), CHILD, str(written)], cwd=ROOT)
    with locked(lock):
        assert written.exists()


def test_a_failing_command_shows_its_output() -> None:
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(CommandError, match="The step failed:\n    the reason"), Step("step") as step:
        run(command, what="The step", step=step)


@pytest.mark.parametrize("lock", [HOST_LOCK, TEST_LOCK], ids=lambda path: path.name)
def test_locks_are_exact(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert not [line for line in lines if "==" not in line.split(";")[0]]
