"""Lets PyPI's torchvision load beside a CPU build of torch.

PyPI's torchvision is a CUDA build: without CUDA its extension does not load, and `import torchvision` fails
on the two operators it registers fakes for. A .pth file of the host's environment imports this module at
start-up; the operators are declared when torchvision is first imported, as ComfyUI must be the first to
import torch.
"""

import sys


class TorchvisionFinder:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_operators()
        return None


def declare_operators():
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch._torchvision_cpu_operators = library


sys.meta_path.insert(0, TorchvisionFinder())
