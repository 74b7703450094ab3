"""The check of a GPU is itself checked, on the CPU at tiny sizes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from checkout import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


def test_the_check_of_a_gpu_compares_everything_measures_every_rate_and_prints_tables() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--device", "cpu", "--tiny"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", done.stdout, re.M))
    architectures = ["standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka"]
    for what in (
        *("captured rows", "greedy completions", "effects", "scale 0 and no steering"),
        *("recorded and eager decode step", *(f"training, {name}" for name in architectures)),
    ):
        assert rows[what] == "yes", done.stdout
    for what in ("effects, tiny, eager", "effects, tiny, recorded", "capture, tiny", "training, "):
        assert any("tokens/s" in rows[name] for name in rows if name.startswith(what)), what


def test_what_is_not_equal_ends_the_check_with_1_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = importlib.import_module("gpu_check")
    apart = [script.Equality("effects", False, "7 apart"), script.Equality("rows", True, "0")]
    monkeypatch.setattr(script, "equalities", lambda device: iter(apart))
    monkeypatch.setattr(script, "rates", lambda *_: iter(()))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--tiny"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == "gpu-check: not equal on this device: effects"
    assert "| effects | **no** | 7 apart |" in capsys.readouterr().out


def test_two_results_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = importlib.import_module("gpu_check")
    right = script.completions

    def wrong(world: object, scale: float, sampling: object, recorded: bool = False) -> object:
        tokens, stream = right(world, scale, sampling, recorded)
        return (tokens + 1, stream) if recorded or scale == 0 else (tokens, stream)

    monkeypatch.setattr(script, "completions", wrong)
    compared = script.equalities("cpu")
    equal = {row.what: row.equal for row in (next(compared) for _ in range(4))}
    assert equal == {
        "captured rows": True,
        "greedy completions": True,
        "scale 0 and no steering": False,
        "recorded and eager decode step": False,
    }
