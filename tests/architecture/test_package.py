"""What the registry and ComfyUI's loader expect of the folder as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gm_core.codecs.libraries import OPENEXR_VERSION

ROOT = Path(__file__).resolve().parents[2]
ALLOWED_REQUIREMENTS = {"OpenEXR"}
READ_BY_PEOPLE = ("web/", "locales/", "workflows/", "scripts/assets/")
READ_BY_COMFYUI = ("gm_core/", "nodes/", "weights/", "__init__.py", *READ_BY_PEOPLE)
IMPORT_QUIETLY = Path(__file__).with_name("import_quietly.py")


def requirement_names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", line)[0] for line in lines if line and not line.startswith("#")}


def test_requirements_of_the_node_path() -> None:
    assert requirement_names((ROOT / "requirements.txt").read_text().splitlines()) <= ALLOWED_REQUIREMENTS


def test_requirements_match_the_project_file() -> None:
    listed = re.search(r"^dependencies = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert listed is not None
    assert re.findall(r'"([^"]+)"', listed[1]) == (ROOT / "requirements.txt").read_text().split("\n")[:-1]


def test_the_oldest_openexr_allowed_is_one_that_the_codec_takes() -> None:
    oldest = ".".join(str(number) for number in OPENEXR_VERSION)
    for folder in (ROOT, ROOT / "training"):
        assert f"OpenEXR>={oldest}" in (folder / "requirements.txt").read_text().splitlines()


def test_registry_name() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'name = "gm-hdr"' in text
    assert 'requires-comfyui = ">=0.3.75"' in text


def suffixes_in(file: str) -> list[str]:
    """Of the line that lists them."""
    listed = re.search(r"SUFFIXES = [\[(](.*)[\])]", (ROOT / file).read_text())
    assert listed is not None
    return re.findall(r'"([^"]+)"', listed[1])


def test_the_page_brings_what_load_hdr_image_reads() -> None:
    assert suffixes_in("web/upload.js") == suffixes_in("nodes/loading.py")


def test_the_registry_is_given_all_that_comfyui_reads() -> None:
    """Without a leading slash the pattern docs/ left web/docs, the nodes' help, out as well."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore"]
    try:
        left_out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot tell: {error}")
    assert "scripts/host.py" in left_out.splitlines()
    assert not [path for path in left_out.splitlines() if path.startswith(READ_BY_COMFYUI)]


def test_import_has_no_side_effects() -> None:
    """No torch, variable, file, socket, process or thread because the pack or gm_core was imported."""
    done = subprocess.run(
        [sys.executable, "-B", str(IMPORT_QUIETLY), str(ROOT)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_no_python_file_is_too_long() -> None:
    folders = ("gm_core", "nodes", "training", "scripts", "benchmarks", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400]
