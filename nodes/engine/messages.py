"""Text on a node in the browser."""

from __future__ import annotations


def show_text(node_id: str | None, text: str) -> None:
    """Shows a text on the node that runs; without an id, which tests and scripts leave out, nowhere."""
    if node_id is None:
        return
    # Imported here: a running node always has a server, but benchmarks and tests load the engine without one.
    from server import PromptServer

    PromptServer.instance.send_progress_text(text, node_id)
