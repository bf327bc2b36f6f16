"""The syntax of label selectors: what is wrong with one, before the API is asked with it.

Matching is left to the API server. The texts are those of Kubernetes' parser, for the flag's error.

Source: apimachinery `pkg/labels/selector.go`; differs: keys and values are checked in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN = re.compile(r"\s*(==|!=|[=!,()<>]|[^\s=!,()<>]+)")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SPECIAL: Final = frozenset(["==", "!=", "=", "!", ",", "(", ")", "<", ">"])
_COMPARISONS: Final = frozenset(["=", "==", "!=", "<", ">"])
_LONGEST_LABEL: Final = 63
_LONGEST_DOMAIN: Final = 253


def check_selector(text: str) -> None:
    """Do nothing if `text` is a label selector; empty selects everything.

    Raises:
        ValueError: with the reason.
    """
    tokens = _Tokens(text)
    if not tokens.ahead:
        return
    if tokens.ahead in _SPECIAL - {"!"}:
        raise ValueError(f"found '{tokens.ahead}', expected: !, identifier, or 'end of string'")
    while True:
        try:
            _check_requirement(tokens)
        except ValueError as error:
            raise ValueError(f"unable to parse requirement: {error}") from None
        if not tokens.ahead:
            return
        if (found := tokens.take()) != ",":
            raise ValueError(f"found '{found}', expected: ',' or 'end of string'")
        if not tokens.ahead or tokens.ahead in _SPECIAL - {"!"}:
            raise ValueError(f"found '{tokens.ahead}', expected: identifier after ','")


class _Tokens:
    """What is left of a selector; `ahead` is the next token, empty at the end."""

    def __init__(self, text: str) -> None:
        self._rest: Iterator[str] = iter(_TOKEN.findall(text))
        self.ahead = next(self._rest, "")

    def take(self) -> str:
        taken, self.ahead = self.ahead, next(self._rest, "")
        return taken


def _check_requirement(tokens: _Tokens) -> None:
    absent = tokens.ahead == "!" and bool(tokens.take())
    key = tokens.take()
    if not key or key in _SPECIAL:
        raise ValueError(f"found '{key}', expected: identifier")
    check_key(key)
    if absent or tokens.ahead in ("", ","):
        return
    operator = tokens.take()
    if operator in ("in", "notin"):
        _check_values(tokens)
    elif operator in _COMPARISONS:
        value = "" if tokens.ahead in ("", ",") else tokens.take()
        if value in _SPECIAL:
            raise ValueError(f"found '{value}', expected: identifier")
        check_value(key, value)
        if operator in ("<", ">") and not re.fullmatch(r"-?\d+", value):
            raise ValueError(f'for "Gt", "Lt" operators, the value must be an integer: "{value}"')
    else:
        raise ValueError(
            f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt"
        )  # the words of Kubernetes: gt and lt are written > and <


def _check_values(tokens: _Tokens) -> None:
    if (found := tokens.take()) != "(":
        raise ValueError(f"found '{found}', expected: '('")
    while True:
        value = "" if tokens.ahead in (",", ")") else tokens.take()
        if value in _SPECIAL:
            raise ValueError(f"found '{value}', expected: ',', ')' or identifier")
        check_value("", value)
        if (found := tokens.take()) == ")":
            return
        if found != ",":
            raise ValueError(f"found '{found}', expected: ',' or ')'")


def check_key(key: str) -> None:
    """Do nothing if `key` may be a label's key: an optional domain with `/`, then a name.

    Raises:
        ValueError: it may not.
    """
    domain, slash, name = key.rpartition("/")
    bad_domain = slash and (len(domain) > _LONGEST_DOMAIN or not _DOMAIN.fullmatch(domain))
    if bad_domain or not name or len(name) > _LONGEST_LABEL or not _VALUE.fullmatch(name):
        raise ValueError(
            f'key: Invalid value: "{key}": a name of at most 63 letters, digits, -, _ and ., '
            "with a letter or digit at both ends, or such a name behind a DNS name and /"
        )


def check_value(key: str, value: str) -> None:
    """Do nothing if `value` may be a label's value.

    Raises:
        ValueError: it may not. `key` says whose it is, for the text.
    """
    if len(value) > _LONGEST_LABEL or not _VALUE.fullmatch(value):
        raise ValueError(
            f'values{f"[{key}]" if key else ""}: Invalid value: "{value}": at most 63 letters, '
            "digits, -, _ and ., with a letter or digit at both ends"
        )
