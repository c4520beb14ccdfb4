"""How commands end: what went wrong on purpose is one line for the user, anything else a traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from gm_core.errors import GainMapError

# What a full or failing disk answers to writes, which do not know the name of their file.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def exit_code(command: Callable[[], int | None]) -> int:
    """What `command` returns, 0 for None; 1 when it raises an error made for the user, which is printed."""
    try:
        return command() or 0
    except GainMapError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            raise
        # A folder that cannot be written or a full disk: the user's to mend, not a fault of the program.
        named = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {named}{error.strerror}", file=sys.stderr)
    return 1
