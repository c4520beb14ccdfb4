"""The real ComfyUI in this process, with the pack installed in it beside random model files.

Set COMFYUI_PATH to a ComfyUI folder; without it these tests are skipped. One host serves the whole session,
because ComfyUI's registries are global.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.comfy.pictures import PROMPT, WORKFLOW

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PACK_PARTS = ("__init__.py", "nodes", "gm_core", "web", "locales", "workflows")
FOLDERS = ("custom_nodes/gm-hdr/weights", "input", "output", "temp", "user/default")
MODEL_FOLDERS = ("diffusion_models", "vae", "loras", "checkpoints", "controlnet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("COMFYUI_PATH"):
        skip = pytest.mark.skip(reason="COMFYUI_PATH is not set: no ComfyUI to test in")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(skip)


def load_file(name: str) -> ModuleType:
    """A helper beside this file, under a name that cannot clash with ComfyUI's top-level modules."""
    spec = importlib.util.spec_from_file_location(f"gmhdr_tests_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeServer:
    client_id = last_node_id = last_prompt_id = None
    sockets_metadata: dict = {}

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.sent.append((event, data))

    def queue_updated(self) -> None:
        pass


class NodeError(Exception):
    """A node failed while a graph ran; the text is what the user would see."""


class Host:
    """ComfyUI's own validation and executor, on a base folder of its own."""

    def __init__(self, tree: Path, base: Path) -> None:
        self.base = base
        sys.path.insert(0, str(tree))
        from comfy.cli_args import args

        args.cpu, args.base_directory, args.disable_api_nodes = True, str(base), True
        # Before `nodes`, which puts ComfyUI/comfy first on sys.path: its utils.py would win.
        importlib.import_module("utils.extra_config")
        self.execution = importlib.import_module("execution")
        self.nodes = importlib.import_module("nodes")
        self.args = args
        self.loop = asyncio.new_event_loop()
        importlib.import_module("server").PromptServer(self.loop)
        self.loop.run_until_complete(
            self.nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False)
        )
        self.server = FakeServer()
        self.executor = self.execution.PromptExecutor(
            self.server, cache_type=self.execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0}
        )

    def module(self, name: str) -> ModuleType:
        """A module of the pack as ComfyUI imported it, e.g. "nodes.saving"."""
        pack = str(self.base / "custom_nodes/gm-hdr").replace(".", "_x_")
        return importlib.import_module(f"{pack}.{name}")

    def node(self, node_id: str) -> Any:
        return self.nodes.NODE_CLASS_MAPPINGS[node_id]

    def call(self, node_id: str, *, hidden: dict | None = None, **inputs: Any) -> Any:
        """Runs one node as the executor does, with its defaults filled in; returns its NodeOutput."""
        cls = self.node(node_id)
        types = cls.INPUT_TYPES()
        given = {
            n: spec[1]["default"] for n, spec in types.get("required", {}).items() if "default" in spec[1]
        }
        return cls.PREPARE_CLASS_CLONE(hidden or {}).EXECUTE_NORMALIZED(**{**given, **inputs})

    def run(self, graph: dict) -> dict:
        """Runs an API graph as POST /prompt would; returns what the nodes report to the browser."""
        self.executor.reset()
        prompt_id = uuid.uuid4().hex
        valid, error, outputs, node_errors = self.loop.run_until_complete(
            self.execution.validate_prompt(prompt_id, graph, None)
        )
        if not valid:
            raise ValueError(f"{error} {node_errors}")
        self.loop.run_until_complete(self.executor.execute_async(graph, prompt_id, {}, outputs))
        if not self.executor.success:
            messages = self.executor.status_messages
            problem = next(text for kind, text in messages if kind == "execution_error")
            raise NodeError(f"{problem['node_type']}: {problem['exception_message']}")
        return self.executor.history_result["outputs"]

    def value(self, node: str, output: int = 0) -> Any:
        """What a node of the last graph passed on."""
        return self.executor.caches.outputs.get(node).outputs[output][0]


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    """As ComfyUI's executor runs nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    # Tiny tensors: several threads would mostly wait for each other.
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("comfy")
    for folder in (*FOLDERS, *(f"models/{name}" for name in MODEL_FOLDERS)):
        (base / folder).mkdir(parents=True)
    for part in PACK_PARTS:
        if (ROOT / part).exists():
            (base / "custom_nodes/gm-hdr" / part).symlink_to(ROOT / part)
    host = Host(Path(os.environ["COMFYUI_PATH"]).resolve(), base)
    load_file("models").write_builtin(base / "custom_nodes/gm-hdr/weights")
    return host


@pytest.fixture(scope="session")
def models(host: Host) -> ModuleType:
    """Random model files: see models.py."""
    return load_file("models")


@pytest.fixture(scope="module")
def sdr_model(models: ModuleType) -> Any:
    """A text-to-image model for the SDR branch."""
    return models.sdr_model()


@pytest.fixture(scope="module")
def gm_model(host: Host, models: ModuleType) -> Any:
    """A model as the paper's: noise prediction, no steps of its own, no text of its own."""
    path = host.base / "models/diffusion_models/paper_like.safetensors"
    models.save(models.unet(models.TINY, seed=20), path)
    return host.call("GMHDRLoadUNet", unet_name=path.name).args[0]


@pytest.fixture(scope="session")
def comfy(host: Host) -> ModuleType:
    """ComfyUI's own package; importable only once the host is set up."""
    return importlib.import_module("comfy")


@pytest.fixture
def output(host: Host) -> Path:
    return host.base / "output"


@pytest.fixture
def hidden(host: Host) -> dict:
    """Prompt and workflow as the executor hands them to a saver."""
    from comfy_api.latest import io

    return {io.Hidden.prompt: PROMPT, io.Hidden.extra_pnginfo: {"workflow": WORKFLOW}}


@pytest.fixture
def save(host: Host) -> Callable[..., tuple[list[Path], list[str]]]:
    """Runs a saver: its files in the order the browser is told, and its warnings."""

    def run(node_id: str, hdr: torch.Tensor, **inputs: Any) -> tuple[list[Path], list[str]]:
        if node_id == "GMHDRSaveUltraHDR":
            inputs.setdefault("sdr", (hdr / hdr.nan_to_num(posinf=0).max()).clamp(0, 1).sqrt())
        name = "gain_map" if node_id == "GMHDRSaveGainMap" else "hdr"
        shown = host.call(node_id, **{name: hdr}, **inputs).ui
        files = [entry for entry in shown["images"] if entry["type"] == "output"]
        return [host.base / "output" / f["subfolder"] / f["filename"] for f in files], shown.get("text", [])

    return run


@pytest.fixture
def read(host: Host) -> Callable[[Path], Any]:
    return host.module("gm_core.codecs.files").read_image


@pytest.fixture
def cancel_at(comfy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The user presses Cancel when the progress bar reaches a value."""

    def arrange(step: int) -> None:
        def hook(value: int, total: int, preview: Any, **_: Any) -> None:
            comfy.model_management.interrupt_current_processing(value == step)

        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)

    return arrange
