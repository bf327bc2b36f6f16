"""The certificate of one cluster's agents: issued, renewed and rotated in a directory.

The directory decides. What it holds becomes the Secret and the CA bundle that are wanted in the
cluster, and the reconciler keeps them so like everything else. Whoever changes the directory, such
as `konnectivity certs rotate --ca`, changes the cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from konnectivity.errors import CertificateError
from konnectivity.lifecycle.credentials.certificate_check import Verdict, check
from konnectivity.lifecycle.credentials.certificate_look import Look, Order, take_look
from konnectivity.lifecycle.credentials.certificate_objects import (
    BUNDLE,
    CERTIFICATE,
    KEY,
    Material,
    answered,
    asked,
    bundle_key,
    entry,
    render_with,
    secret_entry,
    secret_key,
)
from konnectivity.lifecycle.managing.metrics import ManagerCounters
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.lifecycle.reconciling.events import Recorder
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key, key_of
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.net.backoff import Backoff, lengthened
from konnectivity.net.certificate import utc
from konnectivity.observe import logs
from konnectivity.pki import following, upkeep
from konnectivity.pki.upkeep import Holding, Stamp

Object: TypeAlias = dict[str, Any]
log = logs.get(__name__)

TYPE: Final = "CertificatesValid"
INTERVAL: Final = 10.0
"""Seconds between looks at the files, as the agents look at theirs."""
REST: Final = 6
"""Intervals after certificates were issued in which no others are, unless somebody asks: those
that are due again at once, such as those of a CA in its last hour, must not be made in a circle."""
FAILURES: Final = (1.0, 60.0)
BEGINNING: Final = (0.05, 2.0)
"""First and longest wait, after a failure and until the cluster has been looked at."""
DAY: Final = 86400.0


class AgentCertificates:
    """Keeps the directory at `path` for the agents of one cluster, while `run` runs.

    `observed` and `troubles` tell what is in the cluster, and what cannot be read there;
    `changed` is called when `objects` are others than before. Only who may write changes files.
    """

    def __init__(
        self,
        path: Path,
        spec: AgentSpec,
        *,
        observed: Callable[[], Mapping[Key, Object | None]],
        troubles: Callable[[], Mapping[Key, str]],
        changed: Callable[[], None],
        may_write: Callable[[], bool],
        recorder: Callable[[], Recorder],
        counters: ManagerCounters,
        interval: float = INTERVAL,
    ) -> None:
        self.path = path
        self.spec = spec
        """Set it when another one is wanted."""
        self.trouble = ""
        """Why the directory cannot be kept; empty if it can."""
        self._observed = observed
        self._troubles = troubles
        self._changed = changed
        self._may_write = may_write
        self._recorder = recorder
        self._counters = counters
        self._interval = interval
        self._material: Material | None = None
        self._holding: Holding | None = None
        self._stamp: Stamp | None = None
        self._rotated: frozenset[str] | None = None
        self._rests_until = 0.0
        self._noted: tuple[bytes, str] | None = None
        self._verdict: tuple[object, Verdict] | None = None
        self._wrote = False
        self._failures = Backoff(*FAILURES)
        self._beginning = Backoff(*BEGINNING)

    @property
    def known(self) -> bool:
        """Whether it is known what is wanted. Until then nothing of `objects` may be written."""
        return self._material is not None or not self.spec.uses_certificate

    @property
    def ends(self) -> Mapping[str, float]:
        """The ends of validity in the directory, in Unix seconds by role; a CA's is `ca`."""
        return self._holding.ends if self._holding and self.spec.uses_certificate else {}

    def objects(self) -> list[Object]:
        """All objects that are wanted, Secret and bundle among them."""
        if not self.spec.uses_certificate:
            return render(self.spec)
        return render_with(self.spec, self._material or Material())

    async def run(self) -> None:
        """Look at the directory until cancelled."""
        while True:
            if self.spec.uses_certificate:
                await self._pass()
            await asyncio.sleep(self._wait())

    def _wait(self) -> float:
        if self.trouble:
            return self._failures.next()
        self._failures.reset()
        if not self.known:
            return self._beginning.next()
        self._beginning.reset()
        return lengthened(self._interval, 0.1)

    async def _pass(self) -> None:
        observed, now = self._observed(), time.time()
        self._learn(observed)
        wishes = self._wishes(observed)
        order = self._order(observed, new=wishes - self._answered(wishes), now=now)
        if await self._wants_look(order, now):
            look = await asyncio.to_thread(take_look, self.path, order, now=now)
            self._take(look, now)
            self._wrote = order.write
            if order.agents and look.issued:
                self._rotated = wishes
            observed = self._observed()
            self._learn(observed)
        self._publish(observed)
        await self._note(observed)

    def _learn(self, observed: Mapping[Key, Object | None]) -> None:
        """Note which wishes were answered: who writes knows best, others ask the cluster."""
        key = secret_key(self.spec)
        if key in observed and (self._rotated is None or not self._may_write()):
            self._rotated = answered(observed[key])

    def _wishes(self, observed: Mapping[Key, Object | None]) -> frozenset[str]:
        """The values by which a new certificate is asked for."""
        secret = secret_key(self.spec)
        return asked(
            item
            for key, item in observed.items()
            if item is not None and (key == secret or key.kind in WORKLOADS)
        )

    def _answered(self, wishes: frozenset[str]) -> frozenset[str]:
        """Those not to be heeded: as long as it is not known, all."""
        return wishes if self._rotated is None else self._rotated

    def _order(
        self, observed: Mapping[Key, Object | None], *, new: frozenset[str], now: float
    ) -> Order:
        key = secret_key(self.spec)
        found = bool(secret_entry(observed.get(key), CERTIFICATE))
        there = found or self._material is not None
        return Order(
            write=self._may_write() and (bool(new) or now >= self._rests_until),
            make=key in observed and not there,
            agents=bool(new),
            there=there,
            hosts=tuple(dict.fromkeys((self.spec.server_host, *self.spec.server_addresses))),
        )

    async def _wants_look(self, order: Order, now: float) -> bool:
        """Whether the files may be others than before, or something is to be done to them."""
        if self._holding is None or self._stamp is None or order.agents:
            return True
        if order.write and (not self._wrote or now >= self._holding.due):
            return True
        with suppress(OSError):
            return await asyncio.to_thread(upkeep.stamp, self.path) != self._stamp
        return True

    def _take(self, look: Look, now: float) -> None:
        for line in look.told:
            log.info("Certificates changed", directory=str(self.path), done=line)
        self._complain(look.trouble)
        self._stamp = None if look.trouble or look.busy else look.stamp
        self._holding = look.holding or self._holding
        if look.issued:
            self._counters.certificates_issued += look.issued
            self._rests_until = now + REST * self._interval

    def _complain(self, trouble: str) -> None:
        """One line for each new trouble, and one for its end."""
        if trouble:
            self._counters.certificate_failures += 1
        if trouble and trouble != self.trouble:
            log.warning("Cannot keep the certificates; trying again", error=trouble)
            if self._may_write():
                self._recorder().record(
                    secret_key(self.spec), "CertificatesFailed", trouble, warning=True
                )
        elif self.trouble and not trouble:
            log.info("Keeping the certificates again", directory=str(self.path))
        self.trouble = trouble

    def _publish(self, observed: Mapping[Key, Object | None]) -> None:
        """Want in the cluster what the directory holds.

        As long as that was never known, what the cluster has stays, whatever happens to it.
        """
        key = secret_key(self.spec)
        if key not in observed and key not in self._troubles():
            return  # the wishes that were answered are told there
        if self._holding is not None:
            pair, bundle = self._holding.pair, self._holding.bundle
            certificate, private, trusted = (
                each.decode() for each in (pair.certificate, pair.key, bundle)
            )
        else:
            secret = observed.get(key)
            certificate, private = secret_entry(secret, CERTIFICATE), secret_entry(secret, KEY)
            trusted = entry(observed.get(bundle_key(self.spec)), BUNDLE)
        material = Material(certificate, private, trusted, self._rotated or frozenset())
        if certificate and private and trusted and material != self._material:
            self._material = material
            self._changed()

    async def _note(self, observed: Mapping[Key, Object | None]) -> None:
        """Tell a rotation of the CA that the cluster has all that the directory holds."""
        holding = self._holding
        if holding is None or self.trouble or not self._may_write() or not self._has(observed):
            return
        noted = (holding.bundle, holding.certificate.fingerprint_sha256)
        if noted == self._noted:
            return
        try:
            await asyncio.to_thread(
                following.note, self.path, bundle=noted[0], certificate=noted[1], now=time.time()
            )
        except CertificateError as error:
            self._complain(str(error))
        else:
            self._noted = noted

    def _has(self, observed: Mapping[Key, Object | None]) -> bool:
        """Whether certificate and bundle in the cluster are as wanted."""
        wanted = {key_of(item): item["data"] for item in self.objects() if "data" in item}
        keys = (secret_key(self.spec), bundle_key(self.spec))
        return all(wanted[key].items() <= _data(observed.get(key)).items() for key in keys)

    def conditions(self, now: float) -> list[Condition]:
        """Whether the agents' certificate in the cluster is good; nothing if they use none."""
        return [self._condition(now)] if self.spec.uses_certificate else []

    def _condition(self, now: float) -> Condition:
        observed, key = self._observed(), secret_key(self.spec)
        live, holding = observed.get(key), self._holding
        if self.trouble:
            return Condition(TYPE, status=False, reason="DirectoryFailed", message=self.trouble)
        if key not in observed or holding is None:
            message = self._troubles().get(key, "")
            return Condition(TYPE, status=None, reason="Unknown", message=message)
        if live is None:
            return Condition(TYPE, status=False, reason="Missing", message=f"{key} is missing")
        verdict = self._judged(live, holding)
        reason, fault = verdict.at(now)
        if fault or verdict.certificate is None:
            return Condition(TYPE, status=False, reason=reason, message=f"{key}: {fault}")
        end = verdict.certificate.not_after
        message = f"{(end - now) / DAY:.0f} days left, until {utc(end)}; due {utc(holding.due)}"
        return Condition(TYPE, status=True, reason="Valid", message=message)

    def _judged(self, live: Object, holding: Holding) -> Verdict:
        """The verdict on a Secret, kept for as long as neither it nor the bundle changes."""
        of = (live["metadata"].get("resourceVersion"), holding.bundle)
        if self._verdict is None or self._verdict[0] != of:
            self._verdict = of, check(live, holding.bundle)
        return self._verdict[1]


def _data(item: Object | None) -> Mapping[str, object]:
    return (item or {}).get("data") or {}
