"""Runs workflows in a ComfyUI server and returns the files they saved. Uses aiohttp, which ComfyUI has."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from .comfy_server import Server
from .workflow import Workflow

Report = Callable[[str], None]
"""Called with what ComfyUI is doing, such as "GM VAE Decode" or "GM Sampler 3/8"."""


class WorkflowError(RuntimeError):
    """ComfyUI refused the workflow or a node failed; the message says which and why."""


@dataclass(frozen=True)
class Result:
    """What the output nodes of a workflow saved, and what they warned of."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    """Class of the node -> files below the server's output folder."""
    warnings: list[str] = field(default_factory=list)

    def file(self, class_type: str) -> Path:
        (path,) = self.files[class_type]
        return path


def run_workflow(server: Server, workflow: Workflow, report: Report = lambda text: None) -> Result:
    """Posts a workflow and follows it to its end.

    Raises:
        WorkflowError: ComfyUI refused it, or a node failed.
        ServerError: ComfyUI ended meanwhile.
    """
    return asyncio.run(follow(server, workflow, report))


async def follow(server: Server, workflow: Workflow, report: Report) -> Result:
    client = uuid.uuid4().hex
    try:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket,
        ):
            prompt = await post(session, workflow, client)
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                data = event.get("data", {})
                if data.get("prompt_id") == prompt and handle(event["type"], data, workflow, report):
                    shown = await outputs(session, prompt)
                    return result_of(shown, workflow, server.base / "output")
    except aiohttp.ClientError as error:
        raise server.failure(f"ComfyUI does not answer ({error}).") from error
    raise server.failure("ComfyUI closed the connection.")


async def post(session: aiohttp.ClientSession, workflow: Workflow, client: str) -> str:
    body = {"prompt": workflow.graph, "client_id": client}
    async with session.post("/prompt", json=body) as response:
        answer = await response.json()
    if "prompt_id" not in answer:
        raise WorkflowError(refusal(answer, workflow))
    return answer["prompt_id"]


def refusal(answer: dict[str, Any], workflow: Workflow) -> str:
    lines = [answer.get("error", {}).get("message", "ComfyUI refused the workflow")]
    for number, node in answer.get("node_errors", {}).items():
        lines += [f"{workflow.title(number)}: {e['message']}: {e['details']}" for e in node["errors"]]
    return "\n".join(lines)


def handle(kind: str, data: dict[str, Any], workflow: Workflow, report: Report) -> bool:
    """Reports one event; True when the workflow has finished.

    Raises:
        WorkflowError: a node failed, or somebody interrupted it.
    """
    if kind == "executing" and data.get("node"):
        report(workflow.title(data["node"]))
    elif kind == "progress":
        report(f"{workflow.title(data['node'])} {data['value']}/{data['max']}")
    elif kind == "execution_error":
        raise WorkflowError(f"{workflow.title(data['node_id'])}: {data['exception_message'].strip()}")
    elif kind == "execution_interrupted":
        raise WorkflowError("interrupted")
    return kind == "execution_success"


async def outputs(session: aiohttp.ClientSession, prompt: str) -> dict[str, Any]:
    """Node number -> what it told the browser, from the history, which may lag behind the last event."""
    while True:
        async with session.get(f"/history/{prompt}") as response:
            history = await response.json()
        if prompt in history:
            return history[prompt]["outputs"]
        await asyncio.sleep(0.05)


def result_of(shown: dict[str, Any], workflow: Workflow, folder: Path) -> Result:
    result = Result()
    for number, node in shown.items():
        saved = [image for image in node.get("images", []) if image.get("type") == "output"]
        if saved:
            files = [folder / image["subfolder"] / image["filename"] for image in saved]
            result.files.setdefault(workflow.graph[number]["class_type"], []).extend(files)
        result.warnings.extend(node.get("text", []))
    return result
