"""A stand-in for the kubelet's sync of a Secret or a ConfigMap into a pod's directory.

As the kubelet's it replaces all files in one step: they are links through `..data`, a link to a
directory with the content of one moment.

Source: Kubernetes `pkg/volume/util/atomic_writer.go`.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from tests.peers.kube_api import KubeApi

Files = dict[str, bytes]


class Volume:
    """Directory `where` with the data of the object at `path`; `run` follows that."""

    def __init__(self, api: KubeApi, path: str, where: Path) -> None:
        self.where = where
        self.current: Files = {}
        self._api = api
        self._path = path
        self._version = 0
        where.mkdir()

    def file(self, name: str) -> str:
        return str(self.where / name)

    async def run(self, interval: float = 0.05) -> None:
        while True:
            self.sync()
            await asyncio.sleep(interval)

    def sync(self) -> None:
        """Take over what the object holds. Without the object all stays."""
        item = self._api.get(self._path)
        if item is None:
            return
        encoded = "/secrets/" in self._path
        data: dict[str, str] = item.get("data") or {}
        files = {
            name: base64.b64decode(text) if encoded else text.encode()
            for name, text in data.items()
        }
        if files != self.current:
            self._replace(files)

    def _replace(self, files: Files) -> None:
        self._version += 1
        content = self.where / f"..{self._version}"
        content.mkdir()
        for name, each in files.items():
            (content / name).write_bytes(each)
            if not (self.where / name).is_symlink():
                (self.where / name).symlink_to(f"..data/{name}")
        new = self.where / "..data_tmp"
        new.symlink_to(content.name)
        new.replace(self.where / "..data")
        self.current = files
