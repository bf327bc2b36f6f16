"""Objects as YAML that people read: keys in our order, long texts as they are, no anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from konnectivity.lifecycle.objects.metadata import Object


def to_yaml(objects: Sequence[Object]) -> str:
    """The objects as a YAML stream."""
    import yaml  # type: ignore[import-untyped]  # only who prints needs it

    style: dict[str, Any] = {"sort_keys": False, "width": 1000, "allow_unicode": True}
    dumper = _dumper(yaml)
    return "---\n".join(yaml.dump(each, Dumper=dumper, **style) for each in objects)


def _dumper(yaml: Any) -> Any:
    def indent(dumper: Any, flow: bool = False, indentless: bool = False) -> None:
        yaml.SafeDumper.increase_indent(dumper, flow, False)  # lists stand in from their key

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    def never(dumper: Any, value: Any) -> bool:
        return True

    inside = {"ignore_aliases": never, "increase_indent": indent}
    plain: Any = type("Plain", (yaml.SafeDumper,), inside)
    plain.add_representer(str, text)
    return plain
