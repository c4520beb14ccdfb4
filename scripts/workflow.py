"""API-format workflows: nodes are found by their class, never by their number."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from .host import ROOT

SDR_TO_HDR = ROOT / "workflows" / "api" / "sdr_to_hdr.json"


class Workflow:
    """A graph to post to ComfyUI: node number -> {"class_type", "inputs"}."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self.graph = copy.deepcopy(graph)

    @classmethod
    def load(cls, path: Path) -> Workflow:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def nodes(self, class_type: str) -> list[str]:
        return [number for number, node in self.graph.items() if node["class_type"] == class_type]

    def with_inputs(self, class_type: str, **inputs: Any) -> Workflow:
        """A copy with inputs of all nodes of a class replaced.

        Raises:
            KeyError: the workflow has no such node.
        """
        changed = Workflow(self.graph)
        numbers = self.nodes(class_type)
        if not numbers:
            raise KeyError(f"the workflow has no {class_type} node")
        for number in numbers:
            changed.graph[number]["inputs"].update(inputs)
        return changed

    def without(self, class_type: str) -> Workflow:
        """A copy without the output nodes of a class."""
        removed = set(self.nodes(class_type))
        return Workflow({number: node for number, node in self.graph.items() if number not in removed})

    def title(self, number: str) -> str:
        node = self.graph.get(number, {})
        return node.get("_meta", {}).get("title") or node.get("class_type", number)


def sdr_to_hdr(image: str, prefix: str) -> Workflow:
    """The shipped workflow for a picture in ComfyUI's input folder, without its on-screen preview."""
    workflow = Workflow.load(SDR_TO_HDR).without("GMHDRPreview").with_inputs("LoadImage", image=image)
    for saver in ("GMHDRSaveUltraHDR", "GMHDRSaveEXR", "GMHDRSaveRadiance"):
        workflow = workflow.with_inputs(saver, filename_prefix=prefix)
    return workflow.with_inputs("GMHDRSaveGainMap", filename_prefix=f"{prefix}_gm")
