"""As much of Helm's template language as the chart uses, and an error for all else.

Source: Go's text/template, and the functions that Helm adds to it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml


class RequiredError(Exception):
    """`required` was given an empty value."""


def render(template: str, root: dict[str, Any]) -> str:
    """The text of a template; `root` has `Values` and `Release`."""
    parts = iter(list(_parts(template)))
    return _block(parts, root, root, live=True)[0]


def _parts(template: str) -> Iterator[tuple[str, str]]:
    for at, piece in enumerate(re.split(r"(\{\{.*?\}\}(?:\" \}\})?)", template)):
        yield ("action" if at % 2 else "text"), piece


def _block(parts: Iterator[tuple[str, str]], root: Any, dot: Any, *, live: bool) -> tuple[str, str]:
    """Text up to the `else` or `end` that closes it, and which of the two that was."""
    text = ""
    for kind, piece in parts:
        if kind == "text":
            text += piece
            continue
        code = piece[2:-2]
        if code.startswith("-"):
            text, code = text.rstrip(), code[1:]
        word, _, rest = code.strip().partition(" ")
        if word in ("else", "end"):
            return text, word
        if word in ("if", "with", "range"):
            text += _branches(word, rest, parts, root, dot, live=live)
        elif live:
            text += _text(_pipe(code, root, dot))
    return text, ""


def _branches(
    word: str, rest: str, parts: Iterator[tuple[str, str]], root: Any, dot: Any, *, live: bool
) -> str:
    value = _pipe(rest, root, dot) if live else None
    kept = list(_until_end(parts))
    if word == "range":
        return "".join(_block(iter(kept), root, each, live=True)[0] for each in value or [])
    inner = value if word == "with" and value else dot
    replay = iter(kept)
    on, closed = _block(replay, root, inner, live=live and bool(value))
    off = _block(replay, root, dot, live=live and not value)[0] if closed == "else" else ""
    return on if value else off


def _until_end(parts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    depth = 1
    for kind, piece in parts:
        word = piece.strip("{}- ").split(" ")[0] if kind == "action" else ""
        depth += (word in ("if", "with", "range")) - (word == "end")
        yield kind, piece
        if not depth:
            return
    raise SyntaxError("a block without end")


def _pipe(code: str, root: Any, dot: Any) -> Any:
    first, *stages = [
        each.strip() for each in re.split(r"\|(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", code)
    ]
    value = _call(first, root, dot)
    for stage in stages:
        name, *arguments = stage.split()
        value = _apply(name, [*map(int, arguments), value])
    return value


def _call(code: str, root: Any, dot: Any) -> Any:
    if code.startswith("not (") and code.endswith(")"):
        return not _call(code[5:-1], root, dot)
    if code.startswith("or (") and code.endswith(")"):
        return any(_call(each, root, dot) for each in code[4:-1].split(") ("))
    words = shlex.split(code.replace('\\"', ""), posix=False)
    if len(words) == 1:
        return _value(words[0], root, dot)
    return _apply(words[0], [_value(each, root, dot) for each in words[1:]])


def _value(word: str, root: Any, dot: Any) -> Any:
    if word == ".":
        return dot
    if word.startswith("."):
        value = root
        for name in word[1:].split("."):
            value = value[name]
        return value
    return json.loads(word)


def _apply(name: str, given: list[Any]) -> Any:
    match name, given:
        case "eq", [one, other]:
            return one == other
        case "ne", [one, other]:
            return one != other
        case "int", [number]:
            return int(number)
        case "add", [one, other]:
            return one + other
        case "quote", [text]:
            return json.dumps(text)
        case "toYaml", [value]:
            return yaml.safe_dump(value).rstrip("\n")
        case "nindent", [count, text]:
            return "\n" + "\n".join(" " * count + line for line in text.split("\n"))
        case "required", [message, value]:
            if not value:
                raise RequiredError(message)
            return value
    raise SyntaxError(f"{name} is not known, with {len(given)} arguments")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
