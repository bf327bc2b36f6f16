"""A specification that changes while a manager runs: the file is looked at again and again.

A file that is wrong is reported, once for each wrong content, and what was read before stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.specification import spec_file
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe import logs

log = logs.get(__name__)

INTERVAL: Final = 2.0
"""Seconds between looks: each reads it whole, and the CA bundle that it names."""


class SpecWatch:
    """Follows the file at `path`, from which `spec` was read; tells `changed` of each new one.

    `trouble` says what is wrong with the file as it is now; empty if nothing is.
    """

    def __init__(
        self,
        path: str,
        spec: AgentSpec,
        *,
        changed: Callable[[AgentSpec], None],
        interval: float = INTERVAL,
    ) -> None:
        self.spec = spec
        self.trouble = ""
        self._path = path
        self._changed = changed
        self._interval = interval
        self._seen = spec

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Read the file; what it says counts when two looks running have seen the same.

        So a file that is just being written is not taken for a whole one.
        """
        try:
            spec = await asyncio.to_thread(spec_file.load, self._path)
        except ConfigError as error:
            if str(error) != self.trouble:
                log.warning("The specification is wrong; the one before stays", error=str(error))
            self.trouble = str(error)
            return
        self.trouble = ""
        before, self._seen = self._seen, spec
        if spec == before and spec != self.spec:
            self.spec = spec
            log.info("The specification has changed", file=self._path)
            self._changed(spec)
