"""What is pinned, named and shipped agrees with itself."""

import re
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
        one for extra in PROJECT["optional-dependencies"].values() for one in extra
    ]
    for requirement in map(Requirement, declared):
        assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_every_pin_is_exact_and_torch_is_the_one_with_a_cpu_build():
    assert all(re.fullmatch(r"[\w.!]+", version) for version in LOCK.values())
    assert LOCK["torch"] == "2.13.0"


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
