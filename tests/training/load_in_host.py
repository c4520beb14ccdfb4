"""Run by test_export in a process of its own: the pack's loader inside ComfyUI, one forward."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main(tree: str, root: str, weights: str, work: str) -> None:
    sys.path.insert(0, tree)
    from comfy.cli_args import args

    args.cpu = True
    import torch
    from safetensors.torch import load_file, save_file

    spec = importlib.util.spec_from_file_location(
        "gm_hdr_pack", Path(root) / "__init__.py", submodule_search_locations=[root]
    )
    assert spec and spec.loader
    pack = importlib.util.module_from_spec(spec)
    sys.modules["gm_hdr_pack"] = pack
    spec.loader.exec_module(pack)
    load = importlib.import_module("gm_hdr_pack.nodes.engine.load")
    model = load.load_gm_unet(Path(weights), "fp32").model.diffusion_model
    given = load_file(Path(work) / "inputs.safetensors")
    condition, noisy = given["x"].chunk(2, dim=1)
    with torch.no_grad():
        out = model(torch.cat([noisy, condition], dim=1), given["t"], context=given["context"])
    save_file({"out": out.float().contiguous()}, Path(work) / "outputs.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
