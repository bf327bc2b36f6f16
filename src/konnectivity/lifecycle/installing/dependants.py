"""What stops with the tunnel: the API server's ways into the cluster.

Commands that reach a node stop in any case. Webhooks, aggregated APIs and conversions stop where
they are a Service of the cluster; one that is a URL outside goes on.

Source: Kubernetes' API server, egress selection `cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import collection_path

if TYPE_CHECKING:
    from lightkube import AsyncClient

ALWAYS: Final = (
    "kubectl logs, exec, attach, cp and port-forward",
    "connections through the API server to nodes, pods and services (kubectl proxy)",
)


@dataclass(frozen=True, slots=True)
class Dependants:
    """`stopping` has a line for each; `unknown` what could not be looked for, and why."""

    stopping: tuple[str, ...]
    unknown: tuple[str, ...] = ()


async def dependants(client: AsyncClient) -> Dependants:
    """All that would stop.

    Raises one of `client.failures()` when the API does not answer.
    """
    stopping, unknown = list(ALWAYS), []
    for api_version, kind, read in SOURCES:
        try:
            items, _ = await Collection(client, collection_path(api_version, kind)).list()
        except failures() as error:
            if (status := status_of(error)) is None:
                raise
            if status[0] != 404:
                unknown.append(f"{kind}: cannot be listed: {describe(error)}")
            continue
        stopping += [line for item in items for line in read(item)]
    return Dependants(tuple(stopping), tuple(unknown))


def _admission(word: str) -> Callable[[Object], Iterator[str]]:
    def read(item: Object) -> Iterator[str]:
        for hook in item.get("webhooks") or []:
            if service := _service(hook.get("clientConfig")):
                # Fail is what the API sets where nothing is said.
                fatal = hook.get("failurePolicy", "Fail") == "Fail"
                then = "what it judges is then refused" if fatal else "it is then skipped"
                yield f"{word} webhook {hook.get('name')} ({service}): {then}"

    return read


def _aggregated(item: Object) -> Iterator[str]:
    spec = item.get("spec") or {}
    if service := _service(spec):
        group = f"{spec.get('group')}/" if spec.get("group") else ""
        yield f"aggregated API {group}{spec.get('version')} ({service})"


def _conversion(item: Object) -> Iterator[str]:
    conversion = (item.get("spec") or {}).get("conversion") or {}
    if service := _service((conversion.get("webhook") or {}).get("clientConfig")):
        yield f"conversion webhook of {item['metadata']['name']} ({service})"


def _service(config: Mapping[str, Any] | None) -> str:
    service = (config or {}).get("service") or {}
    if not service.get("name"):
        return ""
    return f"service {service.get('namespace') or 'default'}/{service['name']}"


SOURCES: Final = (
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", _admission("validating")),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", _admission("mutating")),
    ("apiregistration.k8s.io/v1", "APIService", _aggregated),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", _conversion),
)
