"""Run by test_generate_in_host in a process of its own: the nodes' engine in ComfyUI, one gain map."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def main(tree: str, root: str, unet: str, work: str, steps: str, seed: str) -> None:
    sys.path.insert(0, tree)
    from comfy.cli_args import args

    args.cpu = True
    import torch
    from safetensors.torch import load_file, save_file

    spec = importlib.util.spec_from_file_location(
        "gm_hdr_pack", Path(root) / "__init__.py", submodule_search_locations=[root]
    )
    assert spec and spec.loader
    sys.modules["gm_hdr_pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    engine = {
        name: importlib.import_module(f"gm_hdr_pack.nodes.engine.{name}") for name in ("load", "upconvert")
    }
    given = load_file(Path(work) / "inputs.safetensors")
    model = engine["load"].load_gm_unet(Path(unet), "fp32")
    with torch.inference_mode():
        sampled = engine["upconvert"].sample_gain_map(
            model,
            model.model.process_latent_out(given["condition"]),
            [[given["context"], {}]],
            seed=int(seed),
            steps=int(steps),
            sampler_name="euler",
            scheduler="normal",
        )
        latent = model.model.process_latent_in(sampled)
    save_file({"latent": latent.contiguous()}, Path(work) / "outputs.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
