"""Small graphs that need no model: a picture is its own gain map."""

from __future__ import annotations

from scripts.workflow import SDR_TO_HDR, Workflow

SAVERS = ("GMHDRSaveEXR", "GMHDRSaveUltraHDR", "GMHDRSaveRadiance", "GMHDRSaveGainMap")


def saving_graph(image: str, prefix: str) -> Workflow:
    """LoadImage -> HDR Merge -> every saver, with the inputs of the shipped workflow."""
    shipped = Workflow.load(SDR_TO_HDR)
    graph = {"image": {"class_type": "LoadImage", "inputs": {"image": image}}}
    for class_type in ("GMHDRMerge", *SAVERS):
        (number,) = shipped.nodes(class_type)
        inputs = dict(shipped.graph[number]["inputs"])
        if class_type in SAVERS:
            inputs["filename_prefix"] = prefix
        graph[class_type] = {"class_type": class_type, "inputs": inputs}
    ends = {"sdr": "image", "gain_map": "image", "hdr": "GMHDRMerge"}
    for node in graph.values():
        node["inputs"].update({name: [end, 0] for name, end in ends.items() if name in node["inputs"]})
        node["inputs"].update(
            {n: v for n, v in (("qmax", 15.0), ("primaries", "bt709")) if n in node["inputs"]}
        )
    return Workflow(graph)
