"""The jobs of a study, one after the other in this very process: Snakemake says which there are,
and their commands are called as functions."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer.main
import yaml
from checkout import ROOT
from snakemake_runs import environment

from saeflow.cli.main import app

# A shell's function in place of the program: it tells what the program would have been given, with
# the text of a file in place of `@FILE`.
_TELL = """
import json, sys
read = lambda argument: open(argument[1:]).read() if argument.startswith("@/dev/fd/") else argument
print(json.dumps([read(argument) for argument in sys.argv[1:]]))
"""


class Job(NamedTuple):
    """One job: its rule, what it makes, and the command line without the program's name."""

    rule: str
    outputs: list[str]
    arguments: list[str]
    on_gpu: bool

    @property
    def command(self) -> str:
        """The command that it calls."""
        return " ".join(self.arguments[:2])

    def run(self) -> None:
        """Call the command; paths are relative to the working directory."""
        typer.main.get_command(app).main(self.arguments, "saeflow", standalone_mode=False)


def jobs_of(
    config: dict[str, object],
    directory: Path,
    targets: Sequence[str] = ("all",),
    options: Sequence[str] = (),
) -> list[Job]:
    """The jobs that a study takes in an empty directory, in an order in which they can be run.

    Args:
        config: of the study.
        directory: the working directory.
        targets: what is asked for.
        options: of Snakemake, besides.
    """
    file = directory / "study.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", *targets, "--dry-run", "--printshellcmds"]
    command += ["--snakefile", ROOT / "Snakefile", "--configfile", file, "--cores", "2"]
    done = subprocess.run(
        list(map(str, [*command, "--directory", directory, *options])),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    blocks = re.findall(
        r"^(?:local)?rule (\w+):\n(.*?)^Shell command: saeflow (.*?) *> \S+ 2>&1$",
        done.stdout,
        re.M | re.S,
    )
    lines = [f"saeflow {line}" for _, _, line in blocks]
    tell = f'saeflow() {{ {shlex.quote(sys.executable)} -c {shlex.quote(_TELL)} "$@"; }}'
    said = subprocess.run(
        ["bash", "-euc", "\n".join([tell, *lines])], capture_output=True, text=True, check=True
    )
    return [
        Job(rule, _outputs(about), _in_one_thread(json.loads(arguments)), "gpu=" in about)
        for (rule, about, _), arguments in zip(blocks, said.stdout.splitlines(), strict=True)
    ]


def _outputs(about: str) -> list[str]:
    line = re.search(r"^ *output: (.*)$", about, re.M)
    assert line, about
    return line[1].split(", ")


def _in_one_thread(arguments: list[str]) -> list[str]:
    """Tiny products are faster so."""
    return [
        "1" if before == "--threads" else argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]
