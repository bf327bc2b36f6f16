"""A page of metrics as a scraper reads it."""

from __future__ import annotations

import asyncio
from typing import Self

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.spec.metrics import Known


class Page:
    """One scrape. Names are those of the series, without `prefix`."""

    def __init__(self, text: str, prefix: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            name = family.name
            counter = family.type == "counter"
            if counter and f"# TYPE {name}_total counter" in text:
                name += "_total"  # the parser takes it off families, and gives it to all samples
            self.families[name.removeprefix(prefix)] = family
            for sample in family.samples:
                series = name if counter else sample.name
                key = series.removeprefix(prefix), frozenset(sample.labels.items())
                assert key not in self._values, f"twice on one page: {sample}"
                self._values[key] = sample.value

    @classmethod
    async def scrape(cls, port: int, prefix: str) -> Self:
        """The page that the health or admin listener on `port` answers with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            answer = (await reader.read(-1)).decode()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200"), answer
        assert "text/plain; version=0.0.4" in head
        return cls(body, prefix)

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; None: it is not there."""
        return self._values.get((name, frozenset(labels.items())))

    def all(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric's series by one label."""
        return {
            dict(labels)[label]: value
            for (series, labels), value in self._values.items()
            if series == name
        }

    def check(self, known: dict[str, Known]) -> None:
        """Every family that upstream has is as upstream has it, to its labels and buckets."""
        for name in known.keys() & self.families.keys():
            family, want = self.families[name], known[name]
            assert family.type == want.kind, name
            for sample in family.samples:
                labels = sample.labels.keys() - ({"le"} if sample.name.endswith("_bucket") else ())
                assert labels == set(want.labels), sample
            bounds = {s.labels["le"] for s in family.samples if s.name.endswith("_bucket")}
            if want.kind == "histogram":
                assert {float(le) for le in bounds} == {*want.bounds, float("inf")}, name
