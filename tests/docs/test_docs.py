"""The documentation says what is so: links lead somewhere, names and numbers are the code's."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import urlsplit

import pytest

import konnectivity
from konnectivity.agent.options import AgentOptions
from konnectivity.cli.flags import parse
from konnectivity.cli.reference import page
from konnectivity.demo.egress import egress_selector_configuration
from konnectivity.server.options import ServerOptions

ROOT = Path(__file__).parents[2]
PACKAGE = Path(konnectivity.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ARCHITECTURE = ROOT / "docs/architecture.md"
ABOUT_CODE = [ARCHITECTURE, ROOT / "docs/credit.md", ROOT / "docs/flow-control.md"]
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": 1}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(path: Path) -> list[str]:
    """What a page marks as code within its text."""
    return re.findall(r"`([^`\n]+)`", prose(path))


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def anchors(path: Path) -> set[str]:
    """The headings of a page as browsers jump to them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_page_of_flags_is_what_its_generator_prints() -> None:
    command = "python -m konnectivity.cli.reference > docs/reference/flags.md"
    assert (ROOT / "docs/reference/flags.md").read_text() == page(), f"run {command}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in links(path):
        url = urlsplit(link)
        if url.scheme:
            continue
        target = path.parent / url.path if url.path else path
        assert target.exists(), f"{link}: there is no {target}"
        if url.fragment:
            assert url.fragment in anchors(target), f"{link}: there is no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    found: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        found |= new
        targets = {path.parent / urlsplit(link).path for path in new for link in links(path)}
        new = {each.resolve() for each in targets if each.suffix == ".md" and each.exists()} - found
    assert found >= {path for path in PAGES if path.parent != ROOT}


def test_every_file_that_is_named_exists() -> None:
    named = {span for path in ABOUT_CODE for span in spans(path)}
    files = {span for span in named if re.fullmatch(r"[\w/]+\.py|\w+/", span)}
    assert files
    assert not {file for file in files if not (PACKAGE / file).exists()}


def test_every_module_has_its_line_in_the_architecture() -> None:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("[!_]*.py")}
    assert modules == {span for span in spans(ARCHITECTURE) if span.endswith(".py")}


def members() -> dict[str, set[str]]:
    """What every class of the package has, by the class's name."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                own = found.setdefault(node.name, set())
                own |= {each.name for each in node.body if hasattr(each, "name")}
    return found


@pytest.mark.parametrize("path", ABOUT_CODE, ids=name_of)
def test_every_class_and_method_that_is_named_exists(path: Path) -> None:
    classes = members()
    names = {span for span in spans(path) if re.fullmatch(r"_?[A-Z][a-z]\w+(\.\w+)?", span)}
    assert names
    for name in names - {"Connect"}:  # a method of gRPC
        owner, _, member = name.partition(".")
        assert owner in classes, f"there is no class {owner}"
        assert not member or member in classes[owner], f"{owner} has no {member}"


BOUNDS = re.findall(
    r"^\| ([^|]+) \| (\d+)(?: (\w+))? \| `([\w.]+)` \|", ARCHITECTURE.read_text(), re.MULTILINE
)


def value(name: str) -> object:
    """A constant, or the default of a dataclass's field."""
    owner_name, _, field = f"konnectivity.{name}".rpartition(".")
    owner = resolve_name(owner_name)
    if isinstance(owner, type) and dataclasses.is_dataclass(owner):
        return next(each.default for each in dataclasses.fields(owner) if each.name == field)
    return getattr(owner, field)


def test_the_tables_of_bounds_are_read() -> None:
    rows = [line for line in prose(ARCHITECTURE).splitlines() if line.startswith("| ")]
    assert len(BOUNDS) == len(rows) - 2  # less the two heads


@pytest.mark.parametrize(("what", "number", "unit", "name"), BOUNDS)
def test_a_bound_is_as_large_as_the_architecture_says(
    what: str, number: str, unit: str, name: str
) -> None:
    assert value(name) == int(number) * UNITS[unit], what


@pytest.mark.parametrize(
    ("program", "options"), [("proxy-server", ServerOptions), ("proxy-agent", AgentOptions)]
)
def test_the_readme_starts_the_programs_with_flags_that_they_have(
    program: str, options: type
) -> None:
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(rf"^\S*bin/{program} .*", text, flags=re.MULTILINE)
    line = parse(options, shlex.split(command)[1:])
    assert not line.warnings


def test_kube_apiserver_is_pointed_here_by_the_file_that_the_demo_writes() -> None:
    wanted = egress_selector_configuration("grpc", "/run/konnectivity/server.socket")
    assert wanted in (ROOT / "docs/how-to/kube-apiserver.md").read_text()
