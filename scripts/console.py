"""Progress on the terminal, and commands whose output is shown only when they fail."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

HEARTBEAT_SECONDS = 10
LINE_WIDTH = 110


class CommandError(RuntimeError):
    """A command failed; the message holds the end of what it printed."""

    def __init__(self, what: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join([f"{what} failed:", *(f"    {line}" for line in lines)]))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Step:
    """Shows one piece of work with the seconds it has taken: live on a terminal, else a line now and then."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.detail = self.closing = ""
        self.finished = threading.Event()
        self.live = sys.stderr.isatty()

    def __enter__(self) -> Step:
        self.start = time.monotonic()
        self.write("")
        self.ticker = threading.Thread(target=self.tick, daemon=True)
        self.ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finished.set()
        self.ticker.join()
        self.detail = self.closing
        self.write("done" if kind is None else "failed")
        if self.live:
            sys.stderr.write("\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def show(self, detail: str) -> None:
        """What is being done right now."""
        self.detail = detail
        if self.live:
            self.write("")

    def finish(self, closing: str) -> None:
        """What to say beside the seconds when the work is done."""
        self.closing = closing

    def tick(self) -> None:
        while not self.finished.wait(1 if self.live else HEARTBEAT_SECONDS):
            self.write("")

    def write(self, state: str) -> None:
        parts = [self.text, state, f"{self.seconds:.0f} s" if state or self.seconds >= 1 else "", self.detail]
        line = "  ".join(part for part in parts if part)[:LINE_WIDTH]
        sys.stderr.write(f"\r\033[K{line}" if self.live else f"{line}\n")
        sys.stderr.flush()


def run(command: Sequence[str], *, what: str, step: Step) -> None:
    """Runs a command to its end, its latest line beside the step. It inherits the lock of a build.

    Raises:
        CommandError: the command exited with another status than 0.
    """
    tail: deque[str] = deque(maxlen=25)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        close_fds=False,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            if not line.startswith("WARNING"):
                step.show(line.strip())
    if process.returncode:
        raise CommandError(what, list(tail))
