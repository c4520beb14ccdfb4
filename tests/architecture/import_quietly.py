"""Imports the pack as ComfyUI does, then every module of gm_core, and prints whatever they did besides."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path

HEAVY = {"torch", "numpy", "comfy", "comfy_api"}
PROCESS_EVENTS = {"os.system", "os.exec", "os.fork", "os.posix_spawn"}


class Watch:
    """Prints every file opened for writing, socket and process while it is entered."""

    def __init__(self) -> None:
        self.active = False
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        writing = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        outside = event in PROCESS_EVENTS or event.split(".")[0] in ("socket", "subprocess")
        if self.active and (writing or outside):
            print(event, arguments)

    def __enter__(self) -> None:
        self.active = True

    def __exit__(self, *_: object) -> None:
        self.active = False


def import_pack(root: Path) -> None:
    name = "any-name.the host chose"
    spec = importlib.util.spec_from_file_location(
        name, root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    if loaded := HEAVY & set(sys.modules):
        print("importing the pack loaded", loaded)


def import_core(root: Path) -> None:
    sys.path.insert(0, str(root))
    for path in sorted((root / "gm_core").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        importlib.import_module(".".join(parts).removesuffix(".__init__"))


def main() -> None:
    root = Path(sys.argv[1])
    watch = Watch()
    with watch:
        import_pack(root)
    importlib.import_module("torch")
    before, threads = dict(os.environ), threading.active_count()
    with watch:
        import_core(root)
    if changed := {
        key for key in os.environ.keys() | before.keys() if os.environ.get(key) != before.get(key)
    }:
        print("changed variables", changed)
    if threading.active_count() != threads:
        print("started a thread")


main()
