"""The agents' certificate as a Secret, and the CAs that they trust. Pure."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from konnectivity.lifecycle.objects.metadata import Object, metadata
from konnectivity.lifecycle.objects.pod import CA_BUNDLE
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec

ROTATE: Final = "konnectivity/rotate"
"""Annotation of the Secret or the workload: a value that is new there asks for a certificate."""
ROTATED: Final = "konnectivity/rotated"
"""Annotation of the Secret: the values of `ROTATE` that have been answered, a JSON list."""
CERTIFICATE, KEY, BUNDLE = "tls.crt", "tls.key", "ca.crt"
LONGEST: Final = 63
"""Characters of a value of `ROTATE` that count."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]*CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Material:
    """What a cluster's agents get, all PEM. `repr` does not show the key."""

    certificate: str = ""
    key: str = field(default="", repr=False)
    bundle: str = ""
    rotated: frozenset[str] = frozenset()


def secret_key(spec: AgentSpec) -> Key:
    """Where the certificate is."""
    return Key("v1", "Secret", spec.namespace, spec.certificate_secret)


def bundle_key(spec: AgentSpec) -> Key:
    """Where the CAs are."""
    return Key("v1", "ConfigMap", spec.namespace, CA_BUNDLE)


def render_with(spec: AgentSpec, material: Material) -> list[Object]:
    """All objects of the agents, their certificate among them, before the workload.

    Agents trust the CAs of `material`, and besides those of the specification.
    """
    # A bundle that is not known yet leaves the pods as they will be.
    bundle = united(material.bundle, spec.ca_bundle) or "unknown"
    items = render(dataclasses.replace(spec, ca_bundle=bundle))
    at = next(at for at, item in enumerate(items) if item["kind"] in WORKLOADS)
    return [*items[:at], _secret(spec, material), *items[at:]]


def united(*bundles: str) -> str:
    """One bundle of several: each certificate once, without what stands between them."""
    blocks = (found[0] for bundle in bundles for found in _BLOCK.finditer(bundle))
    return "".join(f"{block}\n" for block in dict.fromkeys(blocks))


def entry(item: Mapping[str, Any] | None, name: str) -> str:
    """An entry of a ConfigMap; empty if there is none."""
    value = ((item or {}).get("data") or {}).get(name)
    return value if isinstance(value, str) else ""


def secret_entry(item: Mapping[str, Any] | None, name: str) -> str:
    """An entry of a Secret as text; empty if there is none, or it is damaged."""
    try:
        return base64.b64decode(entry(item, name), validate=True).decode()
    except ValueError:
        return ""


def asked(items: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The values of `ROTATE` on objects."""
    return frozenset(value[:LONGEST] for item in items if (value := _annotation(item, ROTATE)))


def answered(secret: Mapping[str, Any] | None) -> frozenset[str]:
    """The values of `ROTATE` that a Secret says were answered."""
    try:
        found = json.loads(_annotation(secret or {"metadata": {}}, ROTATED))
    except ValueError:
        return frozenset()
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset()


def _secret(spec: AgentSpec, material: Material) -> Object:
    meta = metadata(spec, name=spec.certificate_secret)
    if material.rotated:
        meta["annotations"] = {ROTATED: json.dumps(sorted(material.rotated))}
    data = {CERTIFICATE: material.certificate, KEY: material.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()},
    }


def _annotation(item: Mapping[str, Any], name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name) or "")
