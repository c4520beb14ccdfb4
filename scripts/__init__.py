"""Command line tools of the repository, not part of the pack: a ComfyUI to run it in, demo, converter."""

import platform
import sys

# Here, in words of old Pythons, for those cannot read the modules, one of which would say it.
if sys.version_info < (3, 8):  # noqa: UP036
    sys.exit(
        "This is Python " + platform.python_version() + "; Python 3.10 to 3.13 is needed. "
        "Name one, as in: make demo PYTHON=python3.12"
    )
