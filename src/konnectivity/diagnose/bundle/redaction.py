"""Takes secrets out of what goes into a bundle, and addresses on request: `Redactor`. Pure.

Two nets, one behind the other: by place, where a Kubernetes object or a name says that a value is
secret, and by looks, in every text, whoever wrote it. What is masked is counted, never kept.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from konnectivity.tunnel.destination import unmapped

MASK: Final = "<masked>"
SHORTEST: Final = 6
"""Characters of a secret that is known and looked for; shorter ones would be found everywhere."""
PROXIES: Final = frozenset(["http_proxy", "https_proxy", "all_proxy", "no_proxy"])
"""Variables of containers whose values stay, without user and password."""
DROPPED: Final = frozenset(["managedFields", "kubectl.kubernetes.io/last-applied-configuration"])
"""Fields of objects that are large, or repeat in one text what is masked elsewhere."""

RULES: Final[Mapping[str, str]] = {
    "known": "the tokens that this run was given",
    "key": "private keys in PEM, also in base64",
    "token": "JSON Web Tokens and bootstrap tokens",
    "header": "bearer, basic and other values of authorization headers",
    "userinfo": "user and password in URLs",
    "named": "values whose name says password, secret, token, key or credential",
    "secret": "the data of Secrets",
    "environment": "values of containers' variables, but for those of proxies",
    "dropped": "managedFields and kubectl's copy of an object, left out whole",
    "address": "IP addresses; the same one has the same mask (--mask-addresses)",
}
"""What is masked: printed, and in the index with how often."""

_WORDS: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|(?:api|access|private)[-_]?key|credential"
    r"|authorization)[\w.-]{0,40}"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_HARMLESS = re.compile(r"(?:file|path|dir|name|audience|url|ref)s?$", re.IGNORECASE)
_NAMED = re.compile(
    rf"({_WORDS})(\\*[\"']?\s*=\s*\\*[\"']?|\\*[\"']\s*:\s*\\*[\"'])([^\s\"'\\,;&}}]+)",
    re.IGNORECASE,
)
_TOLD = re.compile(rf"({_WORDS})(:\s+)((?=[^\s\"']*[\d_+/=])[^\s\"'\\,;]{{6,}})", re.IGNORECASE)
_PEM = re.compile(
    r"-----BEGIN [^-\n]{0,40}PRIVATE KEY-----"
    r"(?:.{0,20000}?-----END [^-\n]{0,40}PRIVATE KEY-----|(?:\\[nr]|[A-Za-z0-9+/=:,\-\s])*)",
    re.DOTALL,
)
_BASE64 = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{20,}={0,2}")
_TOKENS = re.compile(
    r"eyJ[\w-]{6,4096}\.[\w-]{4,}(?:\.[\w-]*)?|(?<![\w.])[a-z0-9]{6}\.[a-z0-9]{16}(?![\w.])"
)
_SCHEME = re.compile(
    r"\b(bearer|basic|digest|negotiate)(\s+)((?=[^\s\"']*[\d_+/=~.-])[^\s\"'\\,;]{6,}"
    r"|[^\s\"'\\,;]{16,})",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,40}token)(\s*:\s*)([^\r\n\"'\\]+)",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(://)[^/\s\"'<>]*@")
_V4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")
_DASHED = re.compile(r"(?<!\d)(?<!\d-)\d{1,3}(?:-\d{1,3}){3}(?![\d-])")
_V6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:\.\d{1,3}){0,3}(?![\w:])"
)


class Redactor:
    """Masks of one bundle. `known` are secrets to be found wherever they stand."""

    def __init__(self, *, known: Iterable[str] = (), addresses: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        """How often each of `RULES` found something."""
        self.masks_addresses = addresses
        self._known = sorted({each for each in known if len(each) >= SHORTEST}, key=len)[::-1]
        self._addresses: dict[str, str] = {}

    def text(self, text: str) -> str:
        """`text` without what looks like a secret."""
        for secret in self._known:
            if secret in text:
                self.counts["known"] += text.count(secret)
                text = text.replace(secret, MASK)
        text = self._all(_PEM, "key", text)
        text = _BASE64.sub(self._encoded, text)
        text = self._all(_TOKENS, "token", text)
        text = self._all(_HEADER, "header", text, keep=2)
        text = self._all(_SCHEME, "header", text, keep=2)
        text = self._all(_USERINFO, "userinfo", text, keep=1, behind="@")
        for pattern in (_NAMED, _TOLD):
            text = pattern.sub(self._value, text)
        return self._without_addresses(text) if self.masks_addresses else text

    def plain(self, value: Any, *, name: str = "") -> Any:
        """JSON's values likewise; names of fields and the kinds of objects count, too."""
        if isinstance(value, str):
            if value and _is_secret(name):
                return self._masked("named")
            return self.text(value)
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, list | tuple):
            return [self.plain(each, name=name) for each in value]
        return value

    def _mapping(self, value: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        is_secret = value.get("kind") == "Secret"
        for key, inner in value.items():
            if key in DROPPED:
                self.counts["dropped"] += 1
            elif is_secret and key in ("data", "stringData") and isinstance(inner, Mapping):
                found[key] = {self.text(each): self._masked("secret") for each in inner}
            elif key == "env" and isinstance(inner, list | tuple):
                found[key] = [self._variable(each) for each in inner]
            else:
                found[self.text(str(key))] = self.plain(inner, name=str(key))
        return found

    def _variable(self, variable: Any) -> Any:
        """One variable of a container."""
        if not isinstance(variable, Mapping) or not variable.get("value"):
            return self.plain(variable)
        if str(variable.get("name")).lower() in PROXIES:
            return self.plain(variable)
        return {**self._mapping(variable), "value": self._masked("environment")}

    def _masked(self, rule: str) -> str:
        self.counts[rule] += 1
        return MASK

    def _all(
        self, pattern: re.Pattern[str], rule: str, text: str, *, keep: int = 0, behind: str = ""
    ) -> str:
        """What the pattern finds, without its first `keep` groups."""

        def mask(found: re.Match[str]) -> str:
            if found[0].endswith(f"{MASK}{behind}"):
                return found[0]
            return "".join(found.groups()[:keep]) + self._masked(rule) + behind

        return pattern.sub(mask, text)

    def _value(self, found: re.Match[str]) -> str:
        if found[3].startswith(MASK) or not _is_secret(found[1]):
            return found[0]
        return found[1] + found[2] + self._masked("named")

    def _encoded(self, found: re.Match[str]) -> str:
        """Certificates in base64 stay, keys do not."""
        start = found[0][:60].rstrip("=")
        with contextlib.suppress(binascii.Error, ValueError):
            decoded = base64.b64decode(start[: len(start) // 4 * 4])
            if b"PRIVATE" not in decoded and b"PRIVATE KEY" not in _decoded(found[0]):
                return found[0]
        return self._masked("key")

    # Addresses

    def _without_addresses(self, text: str) -> str:
        text = _V6.sub(self._address, text)
        text = _V4.sub(self._address, text)
        return _DASHED.sub(self._address, text)

    def _address(self, found: re.Match[str]) -> str:
        written = found[0].replace("-", ".")
        try:
            ip = unmapped(ipaddress.ip_address(written))
        except ValueError:
            return found[0]
        if ip.is_loopback or ip.is_unspecified:
            return found[0]
        self.counts["address"] += 1
        return self._addresses.setdefault(str(ip), f"address-{len(self._addresses) + 1}")


def _is_secret(name: str) -> bool:
    return bool(_NAME.search(name)) and not _HARMLESS.search(name)


def _decoded(text: str) -> bytes:
    """Base64 as far as it goes: it may have been cut off."""
    whole = text.rstrip("=")
    return base64.b64decode(whole[: len(whole) // 4 * 4])
