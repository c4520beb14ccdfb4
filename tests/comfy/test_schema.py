"""What other people's workflows rely on: ids, inputs, defaults; and that every one of them is explained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PUBLISHED = HERE / "published_nodes.json"
LOCALE = ROOT / "locales/en/nodeDefs.json"
UPDATE = os.environ.get("GMHDR_UPDATE") == "1"


@pytest.fixture(scope="module")
def schemas(host) -> dict[str, Any]:
    ours = {key: cls for key, cls in host.nodes.NODE_CLASS_MAPPINGS.items() if key.startswith("GMHDR")}
    return {key: ours[key].GET_SCHEMA() for key in sorted(ours)}


def published(schema) -> dict[str, Any]:
    inputs = {i.id: [str(i.get_io_type()), getattr(i, "default", None), i.optional] for i in schema.inputs}
    outputs = [[o.display_name, str(o.get_io_type())] for o in schema.outputs]
    return {"inputs": inputs, "outputs": outputs, "output_node": schema.is_output_node}


def locale_entry(schema) -> dict[str, Any]:
    inputs = {i.id: {"name": i.id, "tooltip": i.tooltip} for i in schema.inputs}
    outputs = {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)}
    entry = {"display_name": schema.display_name, "description": schema.description, "inputs": inputs}
    return {**entry, **({"outputs": outputs} if outputs else {})}


def check_file(path: Path, content: dict) -> None:
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    assert json.loads(path.read_text()) == content, (
        f"if this is intended, run again with GMHDR_UPDATE=1: {path}"
    )


def test_published_nodes_keep_their_inputs_and_defaults(schemas) -> None:
    check_file(PUBLISHED, {key: published(schema) for key, schema in schemas.items()})


def test_english_locale_is_the_schema(schemas) -> None:
    check_file(LOCALE, {key: locale_entry(schema) for key, schema in schemas.items()})


def test_every_input_and_output_has_a_tooltip(schemas) -> None:
    for key, schema in schemas.items():
        assert schema.description and schema.category.startswith("GM-HDR/"), key
        assert [i.id for i in (*schema.inputs, *schema.outputs) if not i.tooltip] == [], key


def test_every_node_has_a_help_page_that_explains_every_input_and_output(schemas) -> None:
    for key, schema in schemas.items():
        page = (ROOT / f"web/docs/{key}.md").read_text()
        assert page.startswith(f"# {schema.display_name}\n")
        names = [*(i.id for i in schema.inputs), *(o.display_name for o in schema.outputs)]
        assert [name for name in names if f"`{name}`" not in page] == [], key
        assert "## Example" in page and "## Limits" in page, key


def test_no_help_page_without_a_node(schemas) -> None:
    assert {path.stem for path in (ROOT / "web/docs").glob("*.md")} == set(schemas)
