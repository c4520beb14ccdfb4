"""Tensors on disk, keyed by the content they were computed from and by the network that computed them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from gm_core.codecs.files import write_atomic

logger = logging.getLogger(__name__)


class ContentCache:
    """A folder of small safetensors files. A changed network has another name and finds nothing.

    Args:
        root: cache folder; None keeps nothing.
        network: hash of the network, see `network_hash`.
    """

    def __init__(self, root: Path | None, network: str) -> None:
        self.folder = None if root is None else root / network[:16]

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was stored under `key`; a damaged file counts as absent."""
        if self.folder is None:
            return None
        path = self._path(self.folder, key)
        try:
            return load_file(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            logger.warning("cached %s is unreadable (%s); computing it again", path, error)
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Store float16 copies; a file that another process wrote meanwhile stays."""
        if self.folder is None:
            return
        path = self._path(self.folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = save(
            {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in tensors.items()}
        )
        try:
            write_atomic(path, data)
        except FileExistsError:
            return

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"


def network_hash(network: nn.Module, *settings: object) -> str:
    """Hash of a network's weights and of the settings its results depend on."""
    hasher = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(network.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return hasher.hexdigest()
