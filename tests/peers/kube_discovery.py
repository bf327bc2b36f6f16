"""What `kubectl` asks before it asks for anything: groups, versions, kinds; and tables."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
NAMESPACED = {
    "v1": {
        "ConfigMap": "cm",
        "Event": "ev",
        "Pod": "po",
        "Secret": "",
        "Service": "svc",
        "ServiceAccount": "sa",
    },
    "apps/v1": {"DaemonSet": "ds", "Deployment": "deploy"},
    "coordination.k8s.io/v1": {"Lease": ""},
    "networking.k8s.io/v1": {"NetworkPolicy": "netpol"},
    "policy/v1": {"PodDisruptionBudget": "pdb"},
    "rbac.authorization.k8s.io/v1": {"Role": "", "RoleBinding": ""},
}
CLUSTER = {
    "v1": {"Namespace": "ns", "Node": "no"},
    "rbac.authorization.k8s.io/v1": {"ClusterRole": "", "ClusterRoleBinding": ""},
}
PLURALS = {"NetworkPolicy": "networkpolicies"}


def answer(path: str) -> Object | None:
    """The answer to a path of discovery; None: it is none."""
    path = path.strip("/")
    if path == "version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()}
    version = path.removeprefix("apis/").removeprefix("api/")
    if path == f"{'apis' if '/' in version else 'api'}/{version}" and version in NAMESPACED:
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": _resources(version),
        }
    return None


def _groups() -> list[Object]:
    groups = []
    for version in NAMESPACED:
        if "/" in version:
            entry = {"groupVersion": version, "version": version.partition("/")[2]}
            name = version.partition("/")[0]
            groups.append({"name": name, "versions": [entry], "preferredVersion": entry})
    return groups


def _resources(version: str) -> list[Object]:
    resources = []
    for table, namespaced in ((NAMESPACED, True), (CLUSTER, False)):
        for kind, short in table.get(version, {}).items():
            resource = {
                "name": PLURALS.get(kind, f"{kind.lower()}s"),
                "singularName": kind.lower(),
                "namespaced": namespaced,
                "kind": kind,
                "verbs": VERBS,
            }
            resources.append(resource | ({"shortNames": [short]} if short else {}))
            if kind == "Deployment":
                scale = {"kind": "Scale", "group": "autoscaling", "version": "v1"}
                name = {"name": "deployments/scale", "verbs": ["get", "patch", "update"]}
                resources.append({**resource, **scale, **name})
    return resources


def negotiated(found: Object, accept: str) -> Object:
    """`found` as the client wants it: a table of names for `kubectl get`, or as it is."""
    if "as=Table" not in accept:
        return found
    items = found.get("items", [found])
    columns = [
        {"name": "Name", "type": "string", "format": "name"},
        {"name": "Created At", "type": "date"},
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "columnDefinitions": [{"priority": 0, "description": "", **each} for each in columns],
        "rows": [
            {
                "cells": [each["metadata"]["name"], each["metadata"].get("creationTimestamp", "")],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": each["metadata"],
                },
            }
            for each in items
        ],
    }
