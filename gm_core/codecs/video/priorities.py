"""Keeps encoders from claiming the whole machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Threads of this process that become real-time inside are ordinary ones afterwards.

    Run as root, as in most containers, SVT-AV1 makes its threads and the one that opens it real-time, for
    good: the host's worker and every program that it starts would starve all others. Only Linux has such
    priorities, and elsewhere nothing is done.
    """
    before = _real_time()
    try:
        yield
    finally:
        for thread in _real_time() - before:
            with suppress(OSError):  # It may have ended.
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time() -> set[int]:
    """Ids of this process' real-time threads."""
    found = set()
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        with suppress(OSError):
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(int(task.name))
    return found
