"""The image's steps, run in a folder that stands for the image's root.

There is no container engine here and no network: what pip would install is taken from the
environment that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from tests.lifecycle.containerfile import Stage

from konnectivity import __version__
from konnectivity.lifecycle.objects import arguments, pod, server

ROOT = Path(__file__).parents[2]
BUILD, FINAL = Stage.parse((ROOT / "Containerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VENV = "/opt/konnectivity"
ENVIRONMENT = dict(each.split("=", 1) for each in FINAL.last("ENV"))


def run(*command: str, root: Path) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        env=ENVIRONMENT | {"PATH": os.defpath},
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root after all steps."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    for step in BUILD.all("COPY"):
        *names, target = step.words
        for name in names:
            _copy(ROOT / name, source / (target if target != "./" else name))
    for step in BUILD.all("RUN"):
        command = _within(root, step.words)
        if "pip" in step.words:
            _install(root / VENV[1:], command, source)
        else:
            run(sys.executable, *command[1:], root=source)
    (root / "usr/local/bin").mkdir(parents=True)
    for step in FINAL.all("RUN"):
        run(*_within(root, step.words), root=root)
    return root


def _copy(origin: Path, target: Path) -> None:
    if origin.is_dir():
        shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(origin, target)


def _within(root: Path, words: list[str]) -> list[str]:
    return [f"{root}{word}" if word.startswith("/") else word for word in words]


def _install(venv: Path, command: list[str], source: Path) -> None:
    """What `pip install` of the project does, with packages that are here already."""
    assert command[:3] == ["python", "-m", "pip"]
    assert f"--python={VENV}" in {each.replace(str(venv), VENV) for each in command}
    assert "--constraint=constraints.txt" in command
    assert command[-1] == "."
    assert (source / "constraints.txt").is_file()
    assert (source / "pyproject.toml").is_file()
    for needed in (PROJECT["readme"], *PROJECT["license-files"]):
        assert (source / needed).is_file(), f"the build needs {needed}"
    (packages,) = venv.glob("lib/python*/site-packages")
    paths = [source / "src", Path(sysconfig.get_path("purelib"))]
    (packages / "here.pth").write_text("".join(f"{each}\n" for each in paths))
    for name, target in PROJECT["scripts"].items():
        module, _, function = target.partition(":")
        script = venv / "bin" / name
        script.write_text(f"#!{venv}/bin/python\nfrom {module} import {function}\n{function}()\n")
        script.chmod(0o755)


def test_the_programs_are_where_manifests_look_for_them(image: Path) -> None:
    for command in (arguments.COMMAND, server.COMMAND):
        shown = run(f"{image}{command}", "--version", root=image)
        assert shown == f"konnectivity {__version__}\n"
        assert "Usage: proxy-" in run(f"{image}{command}", "--help", root=image)


def test_the_image_runs_the_package_that_was_copied(image: Path) -> None:
    code = "import konnectivity; print(konnectivity.__file__)"
    shown = run(f"{image}{VENV}/bin/python", "-c", code, root=image)
    assert shown.startswith(f"{image}/src/src/konnectivity/")


def test_the_entry_point_is_the_command_and_shows_its_help(image: Path) -> None:
    (name,) = FINAL.last("ENTRYPOINT")
    shown = run(f"{image}/usr/local/bin/{name}", *FINAL.last("CMD"), root=image)
    assert "Usage: konnectivity <command>" in shown


def test_only_what_was_built_gets_into_the_image() -> None:
    (copied,) = FINAL.all("COPY")
    assert copied.words == [f"--from={BUILD.name}", VENV, VENV]
    assert FINAL.base == BUILD.base, "the interpreter's path must be the same"
    assert FINAL.base.endswith("-slim")


def test_the_image_has_the_user_that_the_pods_run_as() -> None:
    assert FINAL.last("USER") == [f"{pod.USER}:{pod.USER}"]
    assert FINAL.instructions.index(FINAL.all("USER")[0]) > FINAL.instructions.index(
        FINAL.all("RUN")[-1]
    )


def test_nothing_is_written_to_the_image_at_run_time(image: Path) -> None:
    """The pods' root file system is read-only."""
    before = set(image.rglob("*"))
    run(f"{image}{arguments.COMMAND}", "--help", root=image)
    assert set(image.rglob("*")) == before
