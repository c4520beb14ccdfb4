"""The dependency rules between the parts, and what the parts that run inside ComfyUI may not do."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST_PACKAGES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution"}
HOST_PACKAGES |= {"folder_paths", "latent_preview", "node_helpers", "server"}
CORE_PACKAGES = {"torch", "numpy"}
CODEC_PACKAGES = CORE_PACKAGES | {"PIL", "OpenEXR", "imagecodecs"}
NODE_PACKAGES = CORE_PACKAGES | {"PIL", "safetensors", "comfy_api", "folder_paths"}
ENGINE_PACKAGES = NODE_PACKAGES | HOST_PACKAGES
FORBIDDEN_MODULES = {"subprocess", "pickle", "requests", "urllib", "socket", "http", "ctypes"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_OS = {"system", "popen", "execv", "execve", "spawnv", "spawnl", "putenv", "environ", "fork"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(relative level, dotted module) of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names)


def third_party(path: Path) -> set[str]:
    absolute = {name.split(".")[0] for level, name in imports(parse(path)) if level == 0}
    return absolute - set(sys.stdlib_module_names)


def dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *reversed(parts)])


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    return ((dotted(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def files(*folders: str) -> pytest.MarkDecorator:
    found = sources(*folders)
    return pytest.mark.parametrize("path", found, ids=[str(path.relative_to(ROOT)) for path in found])


@files("gm_core")
def test_gm_core_needs_only_torch_and_numpy(path: Path) -> None:
    allowed = CODEC_PACKAGES if "codecs" in path.parts else CORE_PACKAGES
    assert third_party(path) <= allowed


@files("nodes")
def test_only_the_engine_touches_comfy_internals(path: Path) -> None:
    allowed = ENGINE_PACKAGES if "engine" in path.relative_to(ROOT).parts else NODE_PACKAGES
    assert third_party(path) <= allowed


@files("gm_core", "nodes")
def test_the_pack_imports_itself_relatively(path: Path) -> None:
    """ComfyUI loads the pack under an arbitrary name, and owns a top-level module called nodes."""
    own = {"gm_core", "nodes", "training"}
    assert not own & {name.split(".")[0] for level, name in imports(parse(path)) if level == 0}


@files("nodes")
def test_nodes_do_not_reach_training(path: Path) -> None:
    assert not any("training" in name.split(".") for _, name in imports(parse(path)))


@files("training")
def test_training_reaches_neither_nodes_nor_comfy(path: Path) -> None:
    assert not third_party(path) & (HOST_PACKAGES | {"nodes"})


@files("gm_core", "nodes")
def test_no_module_that_runs_code_or_opens_connections(path: Path) -> None:
    assert not FORBIDDEN_MODULES & {name.split(".")[0] for _, name in imports(parse(path))}


@files("gm_core", "nodes")
def test_no_call_that_runs_code(path: Path) -> None:
    tree = parse(path)
    assert not [name for name, _ in calls(tree) if name in FORBIDDEN_CALLS]
    used = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {f"os.{name}" for name in FORBIDDEN_OS}


@files("gm_core", "nodes", "training", "benchmarks", "scripts")
def test_torch_load_is_weights_only(path: Path) -> None:
    for name, call in calls(parse(path)):
        if name == "torch.load":
            safe = [word.value for word in call.keywords if word.arg == "weights_only"]
            assert [value.value for value in safe if isinstance(value, ast.Constant)] == [True]


def host_names(tree: ast.AST) -> set[str]:
    """Local names that stand for something imported from ComfyUI."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or alias.name.split(".")[0]
                for alias in node.names
                if alias.name.split(".")[0] in HOST_PACKAGES
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOST_PACKAGES:
            names |= {alias.asname or alias.name for alias in node.names} if not node.level else set()
    return names


def assigned(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.Delete)):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        else:
            continue
        for target in targets:
            base = target.value if isinstance(target, ast.Subscript) else target
            if isinstance(base, ast.Attribute):
                yield dotted(base)


@files("nodes")
def test_nothing_is_assigned_on_comfy(path: Path) -> None:
    tree = parse(path)
    names = host_names(tree)
    patched = [name for name in assigned(tree) if name.split(".")[0] in names]
    setters = [dotted(call.args[0]) for name, call in calls(tree) if name == "setattr"]
    patched += [name for name in setters if name.split(".")[0] in names]
    assert not patched
