"""The command line as pflag reads it: words in, an options dataclass out.

Also the two texts made from the same declarations: the help and the list of settings that is
logged at start. Nothing is printed here and no environment is read.

Source: github.com/spf13/pflag, flag.go; differs: a wrong flag is one line with a hint.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from konnectivity.errors import ConfigError
from konnectivity.flag import BOOL, STRINGS, Flag, flags_of, sections
from konnectivity.gotext import quote

T = TypeVar("T")

HELP = Flag("help", "help", BOOL, default=False, help="Show this help.", short="h")
VERSION = Flag("version", "version", BOOL, default=False, help="Show the version.")
WIDTH = 96  # columns of the help text
ACRONYMS = frozenset(["alpn", "ca", "id", "qps", "tls", "ttl", "uds"])


@dataclass(frozen=True, slots=True)
class CommandLine(Generic[T]):
    """What a command line says: the options, warnings for stderr, and whether it only asks."""

    options: T
    warnings: tuple[str, ...] = ()
    wants_help: bool = False
    wants_version: bool = False


def parse(
    options: type[T], argv: Sequence[str], *, defaults: Mapping[str, Any] | None = None
) -> CommandLine[T]:
    """Read `argv` (without the program's name) into the dataclass `options`.

    `defaults` replaces the defaults of fields, for those that come from the environment.

    Raises:
        ConfigError: an unknown flag, or a value that its flag does not take.
    """
    reader = _Reader(flags_of(options))
    reader.read(argv)
    values = {**(defaults or {}), **reader.values}
    wants_help = values.pop(HELP.field, False)
    wants_version = values.pop(VERSION.field, False)
    return CommandLine(options(**values), tuple(reader.warnings), wants_help, wants_version)


class _Reader:
    """One pass over a command line; fields that were set end up in `values`."""

    def __init__(self, flags: list[Flag]) -> None:
        known = [*flags, HELP, VERSION]
        self.values: dict[str, Any] = {}
        self.warnings: list[str] = []
        self._long = {each.name: each for each in known}
        self._long |= {each.old_name: each for each in known if each.old_name}
        self._short = {each.short: each for each in known if each.short}

    def read(self, argv: Sequence[str]) -> None:
        words = iter(argv)
        for word in words:
            if word == "--":
                self._ignore(*words)
            elif word.startswith("--"):
                self._read_long(word, words)
            elif word.startswith("-") and word != "-":
                self._read_short(word, words)
            else:
                self._ignore(word)

    def _read_long(self, word: str, words: Iterator[str]) -> None:
        name, given, text = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise ConfigError(f"bad flag syntax: {word}")
        found = self._long.get(name)
        if found is None:
            raise ConfigError(f"unknown flag: --{name}{self._hint(name)}")
        if not given:
            text = "true" if found.kind is BOOL else self._next(words, f"--{name}")
        self._set(found, text, spelled=name)

    def _read_short(self, word: str, words: Iterator[str]) -> None:
        """A cluster of one-letter flags: `-v4`, `-v=4`, `-v 4`, `-hv4`."""
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            found = self._short.get(letter)
            if found is None:
                hint = self._hint(word[1:].partition("=")[0])
                raise ConfigError(f"unknown shorthand flag: '{letter}' in {word}{hint}")
            if letters.startswith("=") and letters != "=":
                text, letters = letters[1:], ""
            elif found.kind is BOOL:
                text = "true"
            elif letters:
                text, letters = letters, ""
            else:
                text = self._next(words, f"'{letter}' in {word}")
            self._set(found, text, spelled=found.name)

    def _next(self, words: Iterator[str], spelled: str) -> str:
        text = next(words, None)
        if text is None:
            raise ConfigError(f"flag needs an argument: {spelled}")
        return text

    def _set(self, found: Flag, text: str, *, spelled: str) -> None:
        try:
            value = found.kind.parse(text)
        except ValueError as error:
            name = f"-{found.short}, --{spelled}" if found.short else f"--{spelled}"
            raise ConfigError(
                f'invalid argument {quote(text)} for "{name}" flag: {error}'
            ) from None
        if found.kind is STRINGS:  # the first occurrence replaces the default, others add
            value = self.values.get(found.field, ()) + value
        self.values[found.field] = value
        notice = found.deprecated
        if spelled == found.old_name:
            notice = f"Use --{found.name} instead"
        if notice:
            self.warnings.append(f"Flag --{spelled} has been deprecated, {notice}")

    def _ignore(self, *words: str) -> None:
        for word in words:
            hint = " (a boolean flag takes its value as --flag=false)"
            self.warnings.append(
                f"argument {quote(word)} is ignored, only flags are expected"
                f"{hint if word in ('true', 'false') else ''}"
            )

    def _hint(self, name: str) -> str:
        import difflib  # only for a command line that is wrong

        known = [each for each, found in self._long.items() if not found.deprecated]
        close = difflib.get_close_matches(name.replace("_", "-").lower(), known, n=1)
        return f" (did you mean --{close[0]}?)" if close else ""


def usage(options: type, *, command: str, about: str, examples: Sequence[str]) -> str:
    """The help text; `{command}` in the examples stands for the command's name."""
    lines = [f"Usage: {command} [flags]", "", *textwrap.wrap(about, WIDTH), "", "Examples:"]
    lines += [f"  {example.format(command=command)}".rstrip() for example in examples]
    for title, section in sections(options):
        lines += ["", f"{title}:"]
        for each in section:
            lines += [] if each.deprecated else _entry(each)
    lines += ["", "Other flags:", *_entry(HELP), *_entry(VERSION)]
    lines += ["", "Values: --flag=value or --flag value; true or false only as --flag=false;"]
    lines += ["durations like 300ms, 90s, 1h30m; the last occurrence of a flag counts.", ""]
    return "\n".join(lines)


def _entry(flag: Flag) -> Iterator[str]:
    name = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
    if flag.short == flag.name:
        name = f"-{flag.name}"
    default = f" (default {flag.kind.show(flag.default)})" if flag.default else ""
    if flag.variable:
        default = f" (default ${flag.variable}, else a random UUID)"
    yield f"  {name} {flag.kind.name}".rstrip() + default
    indent = " " * 6
    yield from textwrap.wrap(
        flag.help, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def settings(options: object) -> Iterator[str]:
    """A line for each flag's value, as upstream logs them at start: `ServerPort set to 8090.`"""
    for each in flags_of(type(options)):
        words = each.field.split("_")
        name = "".join(word.upper() if word in ACRONYMS else word.capitalize() for word in words)
        yield f"{name} set to {each.kind.show(getattr(options, each.field))}."
