"""Every file of a finished study is vouched for, and whatever bit of it is flipped, `saeflow
verify` names the file."""

import random
import subprocess
import sys

from saeflow.describe import integrity

# What nothing computes with, or what another program keeps: SQLite's ledger has a checksum per
# answer.
UNVOUCHED = {"ledger.sqlite"}


def verify(folder):
    line = [sys.executable, "-m", "saeflow.cli.main", "verify", str(folder)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def kinds(results):
    """One file of each kind: of the files that lie in equal places, the first."""
    chosen = {}
    for file in sorted(results.rglob("*")):
        parts = file.relative_to(results).parts
        hidden = any(part.startswith(".") for part in parts)
        if (
            file.is_file()
            and not hidden
            and not {"logs", "benchmarks", "publish"} & set(parts[:-1])
        ):
            stage = parts[0] if len(parts) > 1 else ""
            name = (
                file.suffix
                if file.name.startswith(("shard", "block")) or stage in ("figures", "report")
                else file.name
            )
            chosen.setdefault((stage, name), file)
    return list(chosen.values())


def test_every_file_of_a_study_is_vouched_for_and_a_flipped_bit_is_named(copied):
    done = verify(copied.results)
    assert done.returncode == 0, done.stdout
    assert {
        line.rpartition("/")[2]
        for line in done.stdout.splitlines()
        if line.startswith("no checksum")
    } <= UNVOUCHED
    files = [file for file in kinds(copied.results) if file.name not in UNVOUCHED]
    assert len(files) > 40
    unnamed = []
    for file in files:
        whole, chance = file.read_bytes(), random.Random(file.name)
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole) // 8, len(whole) - len(whole) // 8)] ^= (
            1 << chance.randrange(8)
        )
        file.write_bytes(damaged)
        verdicts = {verdict.path: verdict for verdict in integrity.verify(copied.results)}
        # A bit of the mark of the seal itself leaves the file without one, which is told, too.
        if not (verdicts[file].fault or not verdicts[file].vouched):
            unnamed.append(str(file.relative_to(copied.results)))
        file.write_bytes(whole)
    assert not unnamed
    done = verify(copied.results)
    assert done.returncode == 0
    (files[0]).write_bytes(b"")
    done = verify(copied.results)
    assert done.returncode == 1
    assert str(files[0]) in done.stdout
