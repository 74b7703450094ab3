"""The ledger of a study: every question put to a judging model, every request, every cent, in one
SQLite file.

Answers are found by key, so no text is paid for twice. Each request is written the moment it ends:
a process that is killed has lost the calls in flight and nothing else. Several processes may write
at once.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from saeflow.config.sections import Judge
from saeflow.endpoint.inquiries import Answer, Exchange, Inquiry
from saeflow.errors import SaeflowError

VERSION = 2
PATIENCE = 60_000  # milliseconds to wait for another process's write
CHECKPOINT = 10_000  # pages, 40 MB, of the write-ahead log before it is moved into the file
_OTHERS_AT_WORK = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
# File systems of several machines: write-ahead logging shares memory between processes, which they
# cannot.
SHARED = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "fuse.sshfs",
    "9p",
    "afs",
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, judge TEXT, parameters TEXT, template TEXT, criterion TEXT, prompt TEXT,
    completion TEXT,
    repeat INTEGER, answer TEXT, reason TEXT, attempts INTEGER, answered TEXT, checksum INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key TEXT, ended TEXT, seconds REAL, reason TEXT, raw TEXT, model TEXT,
    address TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, billed INTEGER, usd REAL
);
CREATE TABLE IF NOT EXISTS batches (token TEXT PRIMARY KEY, batch TEXT, ended INTEGER, keys TEXT);
CREATE TABLE IF NOT EXISTS spent (calls INTEGER, usd REAL);
INSERT INTO spent SELECT 0, 0.0 WHERE NOT EXISTS (SELECT 1 FROM spent);
CREATE TRIGGER IF NOT EXISTS spending AFTER INSERT ON requests WHEN new.billed BEGIN
    UPDATE spent SET calls = calls + 1, usd = usd + coalesce(new.usd, 0.0);
END;
"""
_CALLS = """
SELECT answers.*, r.requests, r.seconds, r.prompt_tokens, r.completion_tokens, r.usd, r.model,
r.address, r.raw
FROM answers LEFT JOIN (
    SELECT key, count(*) AS requests, sum(seconds) AS seconds, sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens, sum(usd) AS usd, model, address, raw, max(id)
    FROM requests GROUP BY key
) AS r USING (key) ORDER BY key
"""
_USAGE = """
SELECT answers.judge, answers.template, count(DISTINCT answers.key), count(requests.id),
coalesce(sum(requests.prompt_tokens), 0), coalesce(sum(requests.completion_tokens), 0),
sum(requests.usd)
FROM answers LEFT JOIN requests USING (key) GROUP BY 1, 2 ORDER BY 1, 2
"""
CALLS_SCHEMA: dict[str, type[pl.DataType]] = {
    "key": pl.String, "judge": pl.String, "parameters": pl.String, "template": pl.String,
    "criterion": pl.String,
    "prompt": pl.String, "completion": pl.String, "repeat": pl.Int64, "answer": pl.String,
    "reason": pl.String,
    "attempts": pl.Int64, "answered": pl.String, "requests": pl.Int64, "seconds": pl.Float64,
    "prompt_tokens": pl.Int64, "completion_tokens": pl.Int64, "usd": pl.Float64, "model": pl.String,
    "address": pl.String, "raw": pl.String,
}  # fmt: skip


class Spent(NamedTuple):
    """What the study has spent so far, by all processes."""

    calls: int
    usd: float


class Usage(NamedTuple):
    """What one kind of question to one model took."""

    judge: str
    template: str
    questions: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """None where no price is known."""


class Experience(NamedTuple):
    """What calls to a model have been like; None where there was none."""

    prompt_tokens: float | None
    completion_tokens: float | None
    seconds: float | None


class Batch(NamedTuple):
    """A batch that was submitted."""

    token: str
    """Our own name for it, also in its metadata: known before it is submitted."""
    batch: str | None
    """The endpoint's name for it; None if the process died before it heard."""
    keys: list[str]


class Ledger:
    """One open ledger.

    Args:
        path: of the file; it is made where it does not exist.

    Raises:
        SaeflowError: the file cannot be made, or is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with self._reporting_failures():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE / 1000, isolation_level=None
            )
            self._set_journal("delete" if _on_shared_disk(self.path) else "wal")
            # A commit waits for no disk, a checkpoint does.
            self._connection.execute("PRAGMA synchronous = normal")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
            self._prepare()
            self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]

    def _set_journal(self, mode: str) -> None:
        """Set how the file is written; SQLite does not wait for others here, so processes that
        start together must."""
        for attempt in range(100):
            try:
                self._connection.execute(f"PRAGMA journal_mode = {mode}")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _OTHERS_AT_WORK:
                    raise
            time.sleep(0.01 * min(attempt, 10))

    def _prepare(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise SaeflowError(
                f"{self.path}: is a ledger of another version of saeflow; move it away to start a "
                "new one"
            )
        if version != VERSION:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            )

    @contextmanager
    def _reporting_failures(self) -> Iterator[None]:
        """Tell of a disk or a file that fails in one sentence.

        A damaged page may hold values of any type where SQLite itself notices nothing.
        """
        try:
            yield
        except (
            sqlite3.Error,
            OSError,
            TypeError,
            ValueError,
            OverflowError,
            pl.exceptions.PolarsError,
        ) as error:
            advice = "check the disk, or move the file away to start a new one"
            raise SaeflowError(
                f"{self.path}: the ledger cannot be used ({error}); {advice}"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def answers(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Those of the questions that have been answered, or given up, before.

        What is not as it was written is forgotten, and so asked for again.
        """
        answers, damaged = {}, []
        with self._reporting_failures():
            for first in range(0, len(keys), 500):
                batch = keys[first : first + 500]
                marks = ",".join("?" * len(batch))
                rows = self._connection.execute(
                    (
                        "SELECT key, answer, reason, attempts, checksum FROM answers WHERE key IN "
                        f"({marks})"
                    ),
                    batch,
                )
                for *content, checksum in rows:
                    if checksum != _checksum(*content):
                        damaged.append(content[:1])
                        continue
                    key, answer, reason, attempts = content
                    answers[key] = Answer(
                        None if answer is None else json.loads(answer), reason, attempts, True
                    )
        if damaged:
            with self.writing():
                self._connection.executemany("DELETE FROM answers WHERE key = ?", damaged)
        return answers

    def shared(self) -> bool:
        """Whether anyone else has written since this ledger was opened."""
        with self._reporting_failures():
            return bool(
                self._connection.execute("PRAGMA data_version").fetchone()[0] != self._version
            )

    def record(self, key: str, exchange: Exchange, usd: float | None, address: str) -> None:
        """Write down one request, whatever came of it; within `writing`."""
        self._connection.execute(
            "INSERT INTO requests (key, ended, seconds, reason, raw, model, address, prompt_tokens,"
            " completion_tokens, billed, usd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _storable(
                key, _now(), exchange.seconds, exchange.reason, exchange.raw, exchange.model,
                address,
                exchange.prompt_tokens, exchange.completion_tokens, exchange.billed, usd,
            ),
        )  # fmt: skip

    def settle(self, key: str, inquiry: Inquiry, judge: Judge, answer: Answer) -> None:
        """Write down what a question came to; within `writing`.

        Of two processes that asked the same at the same time, the first is believed.
        """
        identity = inquiry.identity(judge)
        columns = [*identity, "key", "answer", "reason", "attempts", "answered", "checksum"]
        value = None if answer.value is None else json.dumps(answer.value)
        answered = _storable(key, value, answer.reason, answer.attempts)
        values = [*_storable(*identity.values()), *answered, _now(), _checksum(*answered)]
        self._connection.execute(
            (
                f"INSERT OR IGNORE INTO answers ({','.join(columns)}) VALUES "
                f"({','.join('?' * len(columns))})"
            ),
            values,
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What is written within the block is in the file as a whole or not at all."""
        with self._reporting_failures():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has ended the transaction already
                    self._connection.execute("ROLLBACK")
                raise

    def spent(self) -> Spent:
        """Calls and US dollars of the whole study."""
        with self._reporting_failures():
            calls, usd = self._connection.execute("SELECT calls, usd FROM spent").fetchone()
            if type(calls) is not int or type(usd) is not float or not (calls >= 0 and usd >= 0):
                raise ValueError("what was spent is no number")
            return Spent(calls, usd)

    def has_scores(self, judge: Judge) -> bool:
        """Whether this model has ever answered a question."""
        with self._reporting_failures():
            row = self._connection.execute(
                "SELECT 1 FROM answers WHERE judge = ? AND answer IS NOT NULL LIMIT 1",
                (judge.model,),
            ).fetchone()
        return row is not None

    def experience(self, judge: Judge, template: str) -> Experience:
        """Tokens and seconds of a typical call to this model by this template."""
        with self._reporting_failures():
            return Experience(
                *self._connection.execute(
                    "SELECT avg(prompt_tokens), avg(completion_tokens), avg(seconds) FROM ( "
                    "SELECT requests.* FROM requests JOIN answers USING (key) WHERE answers.judge "
                    "= ? AND template = ? AND prompt_tokens > 0 ORDER BY id DESC LIMIT 1000)",
                    (judge.model, template),
                ).fetchone()
            )

    def usage(self) -> list[Usage]:
        """What every kind of question took."""
        with self._reporting_failures():
            return [Usage(*row) for row in self._connection.execute(_USAGE)]

    def open_batches(self) -> list[Batch]:
        """The batches whose answers have not been read."""
        with self._reporting_failures():
            rows = self._connection.execute(
                "SELECT token, batch, keys FROM batches WHERE NOT ended"
            ).fetchall()
            return [Batch(token, batch, _names(json.loads(keys))) for token, batch, keys in rows]

    def note_batch(self, batch: Batch, ended: bool = False) -> None:
        """Write down a batch before it is submitted, when it has a name, and when its answers have
        been read."""
        with self.writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)",
                (batch.token, batch.batch, ended, json.dumps(batch.keys)),
            )

    def forget(self, failures_only: bool) -> int:
        """Forget answers, so that they are asked for again; what was spent stays. Returns how
        many."""
        where = " WHERE answer IS NULL" if failures_only else ""
        with self.writing():
            return self._connection.execute(f"DELETE FROM answers{where}").rowcount

    def calls(self) -> pl.DataFrame:
        """Every answer with what it took, the columns of `CALLS_SCHEMA`."""
        with self._reporting_failures(), closing(self._connection.execute(_CALLS)) as cursor:
            names = [column[0] for column in cursor.description]
            table = pl.DataFrame(
                cursor.fetchall(), schema=names, orient="row", infer_schema_length=None
            )
            return table.select(pl.col(name).cast(kind) for name, kind in CALLS_SCHEMA.items())


def _checksum(*content: object) -> int:
    """Of all that is read of an answer: key, answer, reason and attempts; damage may make bytes of
    any."""
    return zlib.crc32(json.dumps(content, default=repr).encode())


def _storable(*values: object) -> tuple[object, ...]:
    """Values as SQLite takes them: text without halves of characters, which legal JSON may hold."""
    return tuple(v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values)


def _names(value: object) -> list[str]:
    """A list of texts, which a damaged one may no longer be."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("the list of a batch's questions is damaged")
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _on_shared_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether a file lies on a file system that other machines see; unknown where the system lists
    no mounts."""
    if not mounts.is_file():
        return False
    folders = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    whole = str(path.resolve()) + "/"
    holding = [
        (len(folder), kind)
        for folder, kind in folders
        if whole.startswith(folder.rstrip("/") + "/")
    ]
    return max(holding, default=(0, ""))[1] in SHARED
