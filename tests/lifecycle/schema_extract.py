"""Writes `kubernetes.json`: fields and types of the kinds that we make, for each Kubernetes minor.

    python -m tests.lifecycle.schema_extract FOLDER

The folder has one of lightkube-models' wheels for each minor; they are generated from Kubernetes'
own OpenAPI documents. `pip download --no-deps -d FOLDER 'lightkube-models==1.30.*'` fetches one.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

Types = dict[str, dict[str, str]]
"""Type of each field by type and field; a `!` at the end: the field is required."""

KINDS: Final = {
    "v1": ("core_v1", "ConfigMap", "Namespace", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("apps_v1", "DaemonSet", "Deployment"),
    "coordination.k8s.io/v1": ("coordination_v1", "Lease"),
    "networking.k8s.io/v1": ("networking_v1", "NetworkPolicy"),
    "policy/v1": ("policy_v1", "PodDisruptionBudget"),
    "rbac.authorization.k8s.io/v1": ("rbac_v1", "ClusterRoleBinding", "Role", "RoleBinding"),
}
TABLE: Final = Path(__file__).with_name("kubernetes.json")


def modules_of_wheel(path: Path) -> dict[str, str]:
    """The sources of the models in a wheel, by the names of their modules."""
    with zipfile.ZipFile(path) as wheel:
        return {
            Path(name).stem: wheel.read(name).decode()
            for name in wheel.namelist()
            if name.startswith("lightkube/models/")
        }


def types_of(modules: Mapping[str, str]) -> Types:
    """The types of `KINDS`, and all that they refer to but statuses."""
    classes = {name: _classes(name, ast.parse(text)) for name, text in modules.items()}
    open_ = [f"{module}.{kind}" for module, *kinds in KINDS.values() for kind in kinds]
    found: Types = {}
    while open_:
        name = open_.pop()
        module, _, kind = name.partition(".")
        if name in found or kind not in classes.get(module, {}):
            continue
        found[name] = dict(sorted(classes[module][kind].items()))
        open_ += re.findall(r"\w+\.\w+", " ".join(found[name].values()))
    return found


def merged(by_minor: Mapping[str, Types]) -> dict[str, object]:
    """One table of all minors: what holds not for all of them says `since` and `until`."""
    minors = sorted(by_minor, key=_number)
    names = sorted({name for types in by_minor.values() for name in types})
    return {"minors": minors, "types": {name: _merge(name, minors, by_minor) for name in names}}


def _merge(name: str, minors: list[str], by_minor: Mapping[str, Types]) -> dict[str, object]:
    present = [minor for minor in minors if name in by_minor[minor]]
    fields = sorted({field for minor in present for field in by_minor[minor][name]})
    return {
        field: list(_spans(minors, [by_minor[minor].get(name, {}).get(field) for minor in minors]))
        for field in fields
    }


def _spans(minors: list[str], types: list[str | None]) -> Iterator[str]:
    start = 0
    for at in range(1, len(types) + 1):
        if at < len(types) and types[at] == types[start]:
            continue
        if types[start] is not None:
            since = f" since {minors[start]}" if start else ""
            until = f" until {minors[at - 1]}" if at < len(types) else ""
            yield f"{types[start]}{since}{until}"
        start = at


def _classes(module: str, tree: ast.Module) -> dict[str, dict[str, str]]:
    return {
        node.name: dict(_fields(module, node.body))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _fields(module: str, body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        assert isinstance(node.annotation, ast.Constant)
        name = node.target.id
        if name != "status":
            required = "" if node.value is not None else "!"
            text = str(node.annotation.value)
            yield _json_name(node.value) or name, f"{_type(module, text)}{required}"


def _json_name(value: ast.expr | None) -> str:
    """The field's name in JSON where Python could not have it."""
    found = re.search(r"'json'\s*(?::|,)\s*'([^']+)'", ast.unparse(value)) if value else None
    return found[1] if found else ""


def _type(module: str, text: str) -> str:
    """A type as the table has it: `str`, `[str]`, `{any}`, `core_v1.Container`."""
    if inner := re.fullmatch(r"Optional\[(.*)\]", text):
        return _type(module, inner[1])
    if inner := re.fullmatch(r"List\[(.*)\]", text):
        return f"[{_type(module, inner[1])}]"
    if text in ("dict", "Dict"):
        return "{any}"
    if text in ALIASES:
        return ALIASES[text]
    return text if "." in text else ALIASES.get(f"{module}.{text}", f"{module}.{text}")


ALIASES: Final = {
    "str": "str",
    "int": "int",
    "bool": "bool",
    "float": "float",
    "meta_v1.Time": "time",
    "meta_v1.MicroTime": "time",
    "meta_v1.FieldsV1": "{any}",
    "resource.Quantity": "quantity",
    "util_intstr.IntOrString": "int-or-str",
}


def _number(minor: str) -> tuple[int, ...]:
    return tuple(map(int, minor.split(".")))


def text_of(table: Mapping[str, object]) -> str:
    """The table as JSON with a line for each type."""
    types = table["types"]
    assert isinstance(types, dict)
    rows = [f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in types.items()]
    body = ",\n".join(rows)
    return f'{{"minors": {json.dumps(table["minors"])},\n"types": {{\n{body}\n}}}}\n'


def main(folder: str) -> None:
    by_minor = {}
    for path in Path(folder).rglob("lightkube_models-*.whl"):
        minor = ".".join(path.name.split("-")[1].split(".")[:2])
        by_minor[minor] = types_of(modules_of_wheel(path))
    TABLE.write_text(text_of(merged(by_minor)))


if __name__ == "__main__":
    main(sys.argv[1])
