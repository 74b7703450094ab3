"""The ledger: what is kept, for whom, and what happens to a file that is none."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion
from saeflow.endpoint.inquiries import Answer, Exchange, Inquiry
from saeflow.endpoint.ledger import CALLS_SCHEMA, Batch, Ledger, Usage, _on_shared_disk
from saeflow.errors import SaeflowError
from saeflow.judging.templates import RATING, THREE_WAY

JUDGE = Judge(kind="openai", model="m")
ASKED = Inquiry(RATING, "It is calm.", (Completion("I", "I am"),))


def filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    with ledger.writing():
        ledger.record(
            ASKED.key(JUDGE), Exchange(reason="HTTP 500", again=True, billed=False), None, "here"
        )
        ledger.record(
            ASKED.key(JUDGE),
            Exchange(value=7, raw="{}", model="m-1", prompt_tokens=9),
            0.25,
            "here",
        )
        ledger.settle(ASKED.key(JUDGE), ASKED, JUDGE, Answer(7, None, 2))
    return ledger


def test_what_changes_an_answer_changes_its_key() -> None:
    others = [
        ASKED._replace(template=THREE_WAY),
        ASKED._replace(criterion="It is wild."),
        ASKED._replace(completions=(Completion("I", "I was"),)),
        ASKED._replace(completions=(Completion("", "I am"),)),
        ASKED._replace(completions=(Completion("I", "I am"), Completion("I", "I was"))),
        ASKED._replace(repeat=1),
    ]
    judges = [
        Judge(kind="openai", model="n"),
        Judge(kind="openai", model="m", parameters={"temperature": 1}),
    ]
    keys = [
        ASKED.key(JUDGE),
        *(other.key(JUDGE) for other in others),
        *(ASKED.key(judge) for judge in judges),
    ]
    assert len(set(keys)) == len(keys)


def test_an_answer_that_is_not_as_it_was_written_is_asked_for_again(tmp_path: Path) -> None:
    ledger, key = filled(tmp_path / "ledger.sqlite"), ASKED.key(JUDGE)
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE answers SET answer = '5'")  # one flipped bit of a 7
    assert ledger.answers([key]) == {}
    with ledger.writing():
        ledger.settle(key, ASKED, JUDGE, Answer(6, None, 1))
    assert ledger.answers([key]) == {key: Answer(6, None, 1, cached=True)}
    assert ledger.spent() == (1, 0.25), "what was paid for the first is not forgotten"


def test_answers_are_read_with_sqlite3_and_as_parquet(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "judging" / "ledger.sqlite")
    assert ledger.answers([ASKED.key(JUDGE), "other"]) == {
        ASKED.key(JUDGE): Answer(7, None, 2, cached=True)
    }
    assert ledger.spent() == (1, 0.25)
    with sqlite3.connect(ledger.path) as connection:
        assert connection.execute("SELECT completion, answer FROM answers").fetchall() == [
            ("I am", "7")
        ]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    table = ledger.calls()
    assert dict(table.schema) == CALLS_SCHEMA
    row = table.row(0, named=True)
    assert (row["requests"], row["usd"], row["model"], row["raw"], row["prompt"]) == (
        2,
        0.25,
        "m-1",
        "{}",
        "I",
    )


def test_what_every_kind_of_question_took_is_told_by_model_and_template(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.sqlite")
    other = ASKED._replace(template=THREE_WAY)
    with ledger.writing():
        ledger.record(
            other.key(JUDGE), Exchange(value=1, prompt_tokens=5, completion_tokens=2), None, "here"
        )
        ledger.settle(other.key(JUDGE), other, JUDGE, Answer(1, None, 1))
    assert ledger.usage() == [
        Usage("m", RATING.name, 1, 2, 9, 0, 0.25),
        Usage("m", THREE_WAY.name, 1, 1, 5, 2, None),
    ]


def test_a_ledger_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def interrupted() -> None:
        with ledger.writing():
            ledger.record("key", Exchange(value=7), 1.0, "here")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ledger.spent() == (0, 0.0)


def test_failures_are_forgotten_and_what_was_spent_is_not(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.sqlite")
    failed = ASKED._replace(repeat=1)
    with ledger.writing():
        ledger.settle(failed.key(JUDGE), failed, JUDGE, Answer(None, "refused: no", 1))
    assert ledger.forget(failures_only=True) == 1
    assert list(ledger.answers([ASKED.key(JUDGE), failed.key(JUDGE)])) == [ASKED.key(JUDGE)]
    assert ledger.forget(failures_only=False) == 1
    assert ledger.spent() == (1, 0.25)


def test_many_processes_open_and_write_one_new_ledger(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    program = (
        "import sys; from pathlib import Path\n"
        "from saeflow.endpoint.ledger import Ledger; from saeflow.endpoint.inquiries import "
        "Exchange\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for i in range(100):\n"
        "    with ledger.writing(): ledger.record(str(i), Exchange(value=1), 0.5, 'here')\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    assert Ledger(path).spent() == (400, 200.0)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be taken for one" * 20, None]
)
def test_a_file_that_is_no_ledger_is_told_of_in_one_sentence(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    if content:
        path.write_bytes(content)
    else:
        path.mkdir()
    with pytest.raises(
        SaeflowError, match=r"ledger.sqlite: the ledger cannot be used .*; check the disk"
    ):
        Ledger(path)


def test_a_ledger_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SaeflowError, match="another version"):
        Ledger(path)


def test_a_disk_that_other_machines_see_is_told_from_ones_own(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    assert _on_shared_disk(tmp_path / "ledger.sqlite", mounts)
    assert not _on_shared_disk(Path("/elsewhere/ledger.sqlite"), mounts)
    assert not _on_shared_disk(tmp_path / "ledger.sqlite", tmp_path / "no list of mounts")


def test_batches_are_open_until_they_are_read(tmp_path: Path) -> None:
    ledger, batch = Ledger(tmp_path / "ledger.sqlite"), Batch("token", None, ["a", "b"])
    ledger.note_batch(batch)
    ledger.note_batch(batch._replace(batch="name"))
    assert ledger.open_batches() == [Batch("token", "name", ["a", "b"])]
    ledger.note_batch(batch, ended=True)
    assert ledger.open_batches() == []


def test_an_empty_ledger_has_an_empty_table(tmp_path: Path) -> None:
    table = Ledger(tmp_path / "ledger.sqlite").calls()
    assert table.is_empty()
    assert isinstance(table, pl.DataFrame)


def test_flipped_bits_anywhere_are_told_or_change_nothing_that_is_believed(tmp_path: Path) -> None:
    asked = [ASKED._replace(repeat=repeat) for repeat in range(100)]
    ledger, chance = Ledger(tmp_path / "ledger.sqlite"), random.Random(2)
    with ledger.writing():
        for number, inquiry in enumerate(asked):
            ledger.record(
                inquiry.key(JUDGE), Exchange(value=7, raw="{}", prompt_tokens=9), 0.25, "here"
            )
            ledger.settle(inquiry.key(JUDGE), inquiry, JUDGE, Answer(number % 10 + 1, None, 1))
    ledger.note_batch(Batch("token", "name", ["a", "b"]))
    ledger.close()
    truth = {inquiry.key(JUDGE): number % 10 + 1 for number, inquiry in enumerate(asked)}
    whole, refused = ledger.path.read_bytes(), 0
    for trial in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice([1, 3, 20])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{trial}.sqlite"
        path.write_bytes(content)
        try:
            damaged = Ledger(path)
            assert all(
                truth[key] == answer.value for key, answer in damaged.answers(list(truth)).items()
            )
            (
                damaged.spent(),
                damaged.usage(),
                damaged.calls(),
                damaged.open_batches(),
                damaged.has_scores(JUDGE),
            )
            damaged.close()
        except SaeflowError:
            refused += 1
    assert 30 < refused < 270
