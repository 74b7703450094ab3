"""What is pinned, named and shipped agrees with itself."""

import re
import subprocess
import sys
import tomllib

import yaml
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import saeflow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = {
    canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}


def test_the_lock_file_satisfies_every_declared_dependency():
    declared = PROJECT["dependencies"] + [
        entry for extra in PROJECT["optional-dependencies"].values() for entry in extra
    ]
    for requirement in map(Requirement, declared):
        assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_every_pin_is_exact_and_torch_is_the_one_with_a_cpu_build():
    assert all(re.fullmatch(r"[\w.!]+", version) for version in LOCK.values())
    assert LOCK["torch"] == "2.13.0"


def uv_told(listed: str, **environment: str) -> dict[str, str]:
    """uv's settings in a shell that evaluates what `envs/pip_settings.py` prints of pip's."""
    printed = subprocess.run(
        [sys.executable, ROOT / "envs/pip_settings.py"],
        input=listed,
        text=True,
        capture_output=True,
        check=True,
        env=environment,
    ).stdout
    shell = subprocess.run(
        ["bash", "-c", f"{printed}\nenv --null"], capture_output=True, text=True, env=environment
    )
    lines = [line.partition("=") for line in shell.stdout.split("\0") if line]
    return {name: value for name, _, value in lines if name.startswith(("UV_", "SSL_", "ALL_"))}


def test_uv_looks_where_pip_is_told_to_look():
    listed = (
        ":env:.find-links='/my wheels'\n"
        "global.extra-index-url='\\nfile:///mirror/simple\\nhttps://me:it$x@host/simple'\n"
        "global.find-links='/other'\n"
        "global.index-url='https://mirror.example/simple'\n"
        "global.timeout='60'\n"
        "global.constraint='/etc/limits.txt'\n"
    )
    assert uv_told(listed) == {
        "UV_FIND_LINKS": "/my,wheels",  # pip too reads two places there
        "UV_INDEX": "file:///mirror/simple https://me:it$x@host/simple",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_CONSTRAINT": "/etc/limits.txt",
    }


def test_what_is_set_for_uv_itself_stays():
    listed = "global.index-url='https://mirror.example/simple'\nglobal.cert='/etc/mine.pem'\n"
    assert uv_told(listed, UV_DEFAULT_INDEX="https://own.example") == {
        "UV_DEFAULT_INDEX": "https://own.example",
        "SSL_CERT_FILE": "/etc/mine.pem",
    }


def test_pip_told_nothing_tells_uv_nothing():
    assert uv_told("") == {}


def test_conda_environments_use_the_pins_of_the_lock_file():
    environment = yaml.safe_load((ROOT / "envs/default.yaml").read_text())
    pins = [Requirement(line) for line in environment["dependencies"][-1]["pip"]]
    assert {canonicalize_name(pin.name) for pin in pins} == {
        canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]
    }
    assert all(f"=={LOCK[canonicalize_name(pin.name)]}" == str(pin.specifier) for pin in pins)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == saeflow.__version__ == citation["version"]


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
