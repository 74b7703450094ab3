"""Endpoints that are strange, broken or hostile: what they send is read, or told in one
sentence."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sqlite3
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from judge_server import ALWAYS, KEY, SHAPES, completion, score_of, serving, stats
from judge_service import GOAL, PRICE, completions_of, questions, service
from studies import changed

from saeflow.config.addresses import fault_of_address
from saeflow.config.sections import Calls, Judge
from saeflow.endpoint import live
from saeflow.endpoint.answers import read_answer
from saeflow.endpoint.asking import ask
from saeflow.endpoint.connection import Connection, authorization, proxy_of
from saeflow.endpoint.inquiries import JUDGING, AskedBy
from saeflow.endpoint.keys import find_key
from saeflow.endpoint.ledger import Ledger
from saeflow.endpoint.limit import AdaptiveLimit
from saeflow.endpoint.service import Service, estimate
from saeflow.endpoint.unanswered import AT_FIRST, advice
from saeflow.errors import SaeflowError
from saeflow.judging.scores import require_scores, score_completions
from saeflow.judging.templates import PREFERENCE, RATING
from saeflow.kinds import check_any_study

pytestmark = [
    pytest.mark.timeout(120),  # nothing may hang
    pytest.mark.usefixtures("key"),
]


DEFAULT = ROOT / "config.yaml"
SCORES = [score_of(GOAL.criterion, f"I think {i}") for i in range(60)]


# --- nobody waits for ever ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["live", "batch"])
def test_whatever_a_server_sends_to_every_question_a_run_ends_in_one_sentence(
    mode: str, tmp_path: Path
) -> None:
    for kind in ALWAYS:
        with serving(always=kind) as url:
            used = service(url, tmp_path / kind, attempts=2, concurrency=4, mode=mode)
            with pytest.raises(SaeflowError) as caught:
                ask(questions(60), used)
            assert len(str(caught.value)) < 600, kind
            assert "\n" not in str(caught.value)
            assert used.ledger.calls().is_empty(), f"{kind}: a question is marked as failed"


def test_an_answer_that_cannot_be_stored_ends_the_run_and_leaves_no_waiter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = Ledger.record, itertools.count()

    def failing(*arguments: object) -> None:
        if next(count) == 30:
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "record", failing)
    with (
        serving() as url,
        pytest.raises(SaeflowError, match=r"the ledger cannot be used \(Python int too large"),
    ):
        ask(questions(60), service(url, tmp_path))


def test_a_stop_wakes_those_who_wait_for_their_turn() -> None:
    async def turn_after_stop() -> float:
        limit = AdaptiveLimit(2, backoff=1.0)
        async with limit.turn() as began:
            limit.refused(began, 500.0)

        async def late() -> None:
            async with limit.turn():
                pass

        waiter = asyncio.create_task(late())
        await asyncio.sleep(0.01)
        assert not waiter.done()
        limit.halted.set()
        began = asyncio.get_running_loop().time()
        await waiter
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(turn_after_stop()) < 1.0


# --- a judge that refuses everything --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words", "key_to_change"),
    [
        ("http_400", "Unsupported parameter: 'max_tokens'", "steering.judge.parameters"),
        ("http_403", "This key has no access to the model", "calls.key"),
        ("http_413", "The context length is exceeded", "steering.completions.new_tokens"),
        ("http_422", "Input should be a valid string", "steering.judge.parameters"),
        ("http_500", "not now", "calls.base_url"),
        ("error_in_200", "The upstream provider is gone", "steering.judge.model"),
        ("hopeless_in_200", "the key is refused", "User not found"),
        ("filtered", "The response was filtered", "steering.judge.model"),
        ("prose", "the answer is not JSON", "steering.judge.model"),
        ("cut_off", "token limit (10 tokens)", "steering.judge.parameters"),
    ],
)
def test_a_judge_that_refuses_everything_stops_the_run_with_its_own_words_and_the_key_to_change(
    kind: str, words: str, key_to_change: str, tmp_path: Path
) -> None:
    with serving(always=kind) as url:
        used = service(url, tmp_path, attempts=2, concurrency=4)
        with pytest.raises(SaeflowError) as caught:
            ask(questions(200), used)
        assert words in str(caught.value)
        assert key_to_change in str(caught.value)
        assert stats(url)["requests"] <= 2 * (AT_FIRST + 4)
    assert used.ledger.calls().is_empty()


@pytest.mark.parametrize(
    ("kind", "key_to_change"),
    [
        ("http_400", "change labels.asked.parameters"),
        ("http_404", "correct labels.asked.model or calls.base_url"),
        ("http_413", "lower labels.passages.window"),
    ],
)
def test_the_section_that_asks_is_the_one_that_is_named(
    kind: str, key_to_change: str, tmp_path: Path
) -> None:
    asked_by = AskedBy("model", "labels.asked", "labels.passages.window")
    with serving(always=kind) as url:
        used = replace(service(url, tmp_path, attempts=2), asked_by=asked_by)
        with pytest.raises(
            SaeflowError, match=rf"^model 'loopback' at .*{key_to_change}"
        ) as caught:
            ask(questions(30), used)
        assert "judge" not in str(caught.value)


def test_a_small_run_that_is_turned_away_marks_no_question_as_failed(tmp_path: Path) -> None:
    with serving(always="http_400") as url:
        used = service(url, tmp_path)
        with pytest.raises(
            SaeflowError,
            match=r"no score to the first 3 questions \(HTTP 400: Unsupported parameter",
        ):
            ask(questions(3), used)
        assert used.ledger.calls().is_empty()


def test_one_text_that_is_turned_away_by_a_judge_that_works_is_a_reason(tmp_path: Path) -> None:
    with serving() as url:
        ask(questions(1), service(url, tmp_path))
    with serving(always="http_413") as url:
        answer = ask(questions(2), service(url, tmp_path))[1]
    assert (answer.value, answer.reason) == (None, "HTTP 413: The context length is exceeded.")


def test_a_judge_that_breaks_in_the_middle_stops_the_run_and_its_scores_stay(
    tmp_path: Path,
) -> None:
    with Loopback(
        lambda n: (200, completion('{"score": 7}')) if n <= 30 else (403, b'{"error": "expired"}')
    ) as url:
        used = service(url, tmp_path, concurrency=2)
        with pytest.raises(
            SaeflowError, match=r"no score to the last 20 questions \(HTTP 403: expired\)"
        ):
            ask(questions(90), used)
    assert used.ledger.calls()["answer"].to_list() == ["7"] * 30


def test_refusals_of_some_texts_are_reasons_and_do_not_stop_a_run(tmp_path: Path) -> None:
    refused = completion(None, refusal="I would rather not.")
    with Loopback(lambda n: (200, completion('{"score": 7}') if n % 10 == 1 else refused)) as url:
        answers = ask(questions(90), service(url, tmp_path, concurrency=1))
    assert sum(answer.value == 7 for answer in answers) == 9
    assert {answer.reason for answer in answers if answer.value is None} == {
        "refused: I would rather not."
    }


@pytest.mark.parametrize("model", ["gpt-5-mini", "openai/gpt-5.1-2026-01-01", "o3", "o4-mini"])
def test_models_that_reason_get_room_for_it_and_no_temperature(model: str, tmp_path: Path) -> None:
    judge = Judge(kind="openai", model=model)
    assert judge.sampling == {"max_completion_tokens": 4000}
    assert Judge(kind="openai", model="gpt-4o-mini").sampling == {
        "temperature": 0,
        "max_tokens": 50,
    }
    assert Judge(kind="openai", model=model, parameters={"max_tokens": 9}).sampling == {
        "max_tokens": 9
    }
    with serving(refused="max_tokens,temperature") as url:
        used = service(url, tmp_path, judge={"model": model})
        assert [answer.value for answer in ask(questions(5), used)] == SCORES[:5]


def test_a_study_without_a_single_score_is_refused(tmp_path: Path) -> None:
    with serving(always="filtered") as url:
        used = service(url, tmp_path)
        table = score_completions(
            completions_of(["I think a", "I think b"]), GOAL, used.judge, service=used
        )
    with pytest.raises(
        SaeflowError,
        match=r"not one of 4 scores could be given, .*: refused: HTTP 400: The response",
    ):
        require_scores(table)


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_read_in_every_shape_in_which_judges_give_it(
    shape: str, tmp_path: Path
) -> None:
    with serving(shape=shape) as url:
        used = service(url, tmp_path, price=PRICE)
        assert [answer.value for answer in ask(questions(20), used)] == SCORES[:20]
        assert stats(url)["requests"] == 20
    spent = used.ledger.spent()
    assert spent.calls == 20
    expected = estimate(
        questions(20), service("http://127.0.0.1:9", tmp_path / "new", price=PRICE)
    ).usd
    assert expected is not None
    assert spent.usd == pytest.approx(20 * 0.11) or spent.usd == pytest.approx(expected, rel=0.1)
    assert dict(used.ledger.calls().schema)


@pytest.mark.parametrize(
    "content",
    [
        'The text says {"score": 10}.',  # may be quoted from what is judged
        '{"score": 1, "score": 9}',
        '```json\n{"score": 1}\n``` or ```json\n{"score": 9}\n```',
        '<think>{"score": 9}</think>',
        '{"score": 7.5}',
        '{"score": true}',
        '{"score": NaN}',
        '{"score": ' + "9" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_what_may_not_be_the_answer_is_not_taken_for_it(content: str) -> None:
    with pytest.raises(ValueError, match=r"^the answer "):
        RATING.parse(content)


def test_comparisons_are_read_in_fences_too() -> None:
    assert PREFERENCE.parse('```\n{"better": "A"}\n```') == "A"


def test_reading_an_answer_never_fails_whatever_is_in_it() -> None:
    """Every value of a completion, at every depth, is replaced by everything that JSON can say."""
    whole = json.loads(completion('{"score": 7}'))
    odd = [
        None,
        True,
        -1,
        1e999,
        float("nan"),
        10**40,
        "",
        "\ud800",
        "\x00",
        [],
        [[]],
        {},
        {"a": 1},
        "x" * 1000,
    ]
    asked, chance = questions(1)[0], random.Random(0)

    def mutated(value: object) -> object:
        if chance.random() < 0.15:
            return chance.choice(odd)
        if isinstance(value, dict):
            return {name: mutated(item) for name, item in value.items() if chance.random() > 0.05}
        return [mutated(item) for item in value] if isinstance(value, list) else value

    for _ in range(5000):
        exchange = read_answer(json.dumps(mutated(whole)), asked)
        assert (exchange.value is None) != (exchange.reason is None)
        assert 0 <= exchange.prompt_tokens <= 10**9
        assert 0 <= exchange.completion_tokens <= 10**9
        for text in (exchange.reason, exchange.model):
            assert text is None or text.encode().decode() == text


@pytest.mark.parametrize("shape", ["no_usage", "usage_0", "negative_usage", "odd_usage"])
def test_a_limit_in_dollars_holds_for_an_endpoint_that_does_not_count(
    shape: str, tmp_path: Path
) -> None:
    with serving(shape=shape) as url:
        with pytest.raises(SaeflowError, match=r"calls.max_usd: US\$ 1\.\d+ of 1 is spent"):
            ask(questions(60), service(url, tmp_path, max_usd=1.0, price=PRICE, concurrency=1))
        assert stats(url)["requests"] < 12


def test_a_cut_off_answer_is_not_asked_for_again(tmp_path: Path) -> None:
    with serving(always="cut_off") as url:
        answer = ask(questions(1), service(url, tmp_path, attempts=6))[0]
        assert answer.reason == "the answer was cut off at its token limit (10 tokens)"
        assert stats(url)["requests"] == 1
    assert advice(answer.reason, JUDGING).startswith(
        "raise max_tokens or max_completion_tokens in steering.judge.parameters"
    )


# --- where it leads -------------------------------------------------------------------------------


def test_a_redirect_is_told_and_not_followed(tmp_path: Path) -> None:
    with (
        serving(always="redirect") as url,
        pytest.raises(SaeflowError, match=r"leads on to 127.0.0.1:9/v1") as caught,
    ):
        ask(questions(1), service(url, tmp_path))
    assert "calls.base_url" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_daily_limit_is_told_after_minutes_and_not_hours(tmp_path: Path) -> None:
    lines: list[str] = []
    with serving(always="daily_limit") as url:
        used = service(url, tmp_path, concurrency=1)
        used = type(used)(
            used.judge,
            used.calls,
            used.ledger,
            progress=lambda done, total, note="": lines.append(note),
        )
        with pytest.raises(
            SaeflowError, match=r"every call for its rate, 10 times in a row .*free-models-per-day"
        ):
            ask(questions(30), used)
        assert stats(url)["requests"] == live.REFUSALS_OF_ALL
    assert lines[-1].startswith("waiting 1 s: HTTP 429: Rate limit exceeded")
    limit = AdaptiveLimit(1, Calls().backoff)
    pauses = [limit.refused(float("inf"), 0.0) for _ in range(live.REFUSALS_OF_ALL - 1)]
    assert 180 < sum(pauses) < 300, "seconds, at the usual pauses"


# --- addresses, keys and proxies ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://user:passWORD@localhost:8000/v1",
        "https://passWORD@example.org",
        "http://localhost/v1?key=passWORD",
        "http://localhost/v1?api-version=1&token=passWORD",
        "http://localhost/v1#passWORD",
        "user:passWORD@localhost:8000/v1",
    ],
)
def test_a_secret_in_an_address_is_refused_before_anything_is_written_and_is_not_repeated(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = fault_of_address(address, "MY_KEY")
    assert fault
    assert "passWORD" not in fault
    assert "MY_KEY" in fault or address.startswith("user")
    judged = {
        "steering.judge": {"kind": "openai", "model": "m"},
        "calls": {"key": "MY_KEY", "base_url": address},
    }
    with pytest.raises(SaeflowError, match=r"calls\.base_url: ") as caught:
        check_any_study(changed(yaml.safe_load(DEFAULT.read_text()), judged))
    assert "passWORD" not in str(caught.value)
    with pytest.raises(SaeflowError, match=r"calls\.base_url: ") as caught:
        Connection(Judge(kind="openai", model="m"), Calls(base_url=address))
    assert "passWORD" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(SaeflowError, match="OPENAI_BASE_URL: ") as caught:
        Connection(Judge(kind="openai", model="m"), Calls())
    assert "passWORD" not in str(caught.value)


@pytest.mark.parametrize(
    "written", ["sk-proj-0123456789", "AIzaSy0123", "0123456789abcdef", "gsk_abc"]
)
def test_a_key_in_the_config_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(SaeflowError, match=r"calls\.key: must be the name of a variable") as caught:
        check_any_study(yaml.safe_load(DEFAULT.read_text()) | {"calls": {"key": written}})
    assert written not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("localhost:8000/v1", "must open with http:// or https://"),
        ("127.0.0.1:8000/v1", "must open with http:// or https://"),
        ("ftp://localhost/v1", "must open with http:// or https://"),
        ("http://", "must open with http:// or https://"),
        ("http://[::1/v1", "is no address"),
        ("http://localhost:port/v1", "is no address"),
        ("http://local host/v1", "holds a blank"),
        ("http://localhost/v1/chat/completions", "leave that out"),
        ("http://localhost:8000/v1", None),
        ("https://me.openai.azure.com/openai/deployments/d?api-version=2024-10-21", None),
    ],
)
def test_an_address_that_is_none_is_told_with_one_that_is(address: str, says: str | None) -> None:
    fault = fault_of_address(address, "KEY")
    assert fault is None if says is None else says in str(fault)


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert (
        Connection(Judge(kind="openai", model="m"), Calls()).address == "https://api.openai.com/v1"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    assert (
        Connection(Judge(kind="openai", model="m"), Calls()).address == "http://localhost:8000/v1"
    )


def test_the_query_of_an_address_comes_after_the_path_and_its_key_as_azure_wants_it(
    tmp_path: Path,
) -> None:
    with Loopback(lambda n: (200, completion('{"score": 7}'))) as url:
        used = service(f"{url}/deployments/d?api-version=2024-10-21", tmp_path)
        assert ask(questions(1), used)[0].value == 7
        path, headers = Loopback.seen[-1]
    assert path == "/v1/deployments/d/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == KEY


def test_a_server_is_told_nothing_of_the_machine_and_nothing_that_it_said_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: mine")
    with Loopback(lambda n: (200, completion('{"score": 7}'))) as url:
        assert ask(questions(2), service(url, tmp_path, concurrency=1))[1].value == 7
        headers = Loopback.seen[-1][1]
    sent = {
        "Host",
        "Authorization",
        "User-Agent",
        "Accept",
        "Accept-Encoding",
        "Content-Type",
        "Content-Length",
    }
    assert set(headers) == sent
    assert (headers["User-Agent"], headers["Content-Type"]) == ("saeflow", "application/json")


def test_name_and_password_come_from_the_environment_and_are_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "Basic someone:passWORD")
    echo = [b""]
    with Loopback(lambda n: (403, b'{"error": "no entry for ' + echo[0] + b'"}')) as url:
        for said in (b"someone:passWORD", b"Basic c29tZW9uZTpwYXNzV09SRA==", b"passWORD"):
            echo[0] = said
            with pytest.raises(SaeflowError, match="no entry for") as caught:
                ask(questions(2), service(url, tmp_path))
            assert "passWORD" not in str(caught.value)
            assert "c29tZW9uZ" not in str(caught.value)
        assert Loopback.seen[-1][1]["Authorization"] == "Basic c29tZW9uZTpwYXNzV09SRA=="
    with pytest.raises(SaeflowError) as caught:
        ask(questions(30), service("http://127.0.0.1:9/v1", tmp_path, attempts=1))
    assert "passWORD" not in str(caught.value)
    assert not any(b"passWORD" in file.read_bytes() for file in tmp_path.iterdir())
    assert authorization("sk-1") == "Bearer sk-1"
    assert authorization("Bearer abc") == "Bearer abc"


@pytest.mark.parametrize("written", ["sk-1\nsk-2", "sk\r\nX: y", "schlüssel", "sk-\x00"])
def test_a_key_that_no_header_can_hold_is_told_without_its_value(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": written})
    with pytest.raises(
        SaeflowError, match="the value of OPENAI_API_KEY holds a line break"
    ) as caught:
        find_key(Calls(), tmp_path / "none")
    assert written not in str(caught.value)
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": " sk-1\n"})
    assert find_key(Calls(), tmp_path / "none") == "sk-1"


@pytest.mark.parametrize(
    ("address", "variables", "proxy"),
    [
        ("https://example.org/v1", {"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://example.org/v1", {"ALL_PROXY": "proxy:3128"}, "http://proxy:3128"),
        (
            "https://example.org/v1",
            {"https_proxy": "http://proxy:3128", "no_proxy": ".example.org"},
            None,
        ),
        (
            "https://api.example.org/v1",
            {"https_proxy": "http://proxy:3128", "no_proxy": "example.org,b"},
            None,
        ),
        (
            "https://example.org/v1",
            {"https_proxy": "http://proxy:3128", "no_proxy": "ample.org"},
            "http://proxy:3128",
        ),
        (
            "http://10.1.2.3/v1",
            {"http_proxy": "http://proxy:3128", "no_proxy": "fe80::/10,10.0.0.0/8"},
            None,
        ),
        ("http://10.1.2.3/v1", {"http_proxy": "http://proxy:3128", "no_proxy": "*"}, None),
        ("http://127.0.0.1:1/v1", {"ALL_PROXY": "socks://proxy:1"}, None),
        ("http://localhost/v1", {"http_proxy": "http://proxy:3128"}, None),
        ("http://example.org/v1", {"all_proxy": "socks5h://proxy:1"}, "refused"),
    ],
)
def test_a_proxy_is_the_one_that_the_environment_names(
    address: str, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", variables)
    if proxy == "refused":
        with pytest.raises(
            SaeflowError,
            match=r"a proxy 'socks5h://'.* set http_proxy .* or add example.org to no_proxy",
        ):
            proxy_of(address)
    else:
        assert proxy_of(address) == proxy


def test_no_more_is_read_than_was_agreed(tmp_path: Path) -> None:
    with serving(always="too_long") as url:
        used = service(url, tmp_path, attempts=1)
        with pytest.raises(SaeflowError, match=r"the answer is longer than 4,194,304 bytes"):
            ask(questions(1), used)


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_is_read_whatever_characters_stand_within_its_lines(tmp_path: Path) -> None:
    with serving(lines="separators") as url:
        answers = ask(questions(50), service(url, tmp_path, mode="batch", poll=0.01))
        assert stats(url)["batches"] == 1
    assert [answer.value for answer in answers] == SCORES[:50]


def test_a_line_of_a_batch_that_cannot_be_read_is_one_failed_question(tmp_path: Path) -> None:
    with serving(lines="garbage") as url:
        answers = ask(questions(50), service(url, tmp_path, mode="batch", poll=0.01))
        assert stats(url)["batches"] == 1, "what may have been paid for is not bought again"
    wrong = [
        answer for answer, score in zip(answers, SCORES, strict=False) if answer.value != score
    ]
    assert [answer.reason for answer in wrong] == [
        "the batch has no answer: a line of its results cannot be read"
    ]


@pytest.mark.parametrize("lines", ["nothing", "refused"])
def test_a_batch_that_answers_nothing_is_not_bought_again(lines: str, tmp_path: Path) -> None:
    with serving(lines=lines) as url:
        used = service(url, tmp_path, mode="batch", poll=0.01)
        with pytest.raises(
            SaeflowError, match=r"50 questions of a batch .* none of them is marked as failed"
        ):
            ask(questions(50), used)
        assert stats(url)["batches"] == 1
    assert used.ledger.calls().is_empty()


def test_a_batch_in_a_state_of_its_own_is_waited_for(tmp_path: Path) -> None:
    with serving(states="queued,Validating,queued,completed") as url:
        answers = ask(questions(20), service(url, tmp_path, mode="batch", poll=0.01, max_calls=20))
        assert stats(url)["batches"] == 1
    assert [answer.value for answer in answers] == SCORES[:20]


def test_a_batch_in_an_unknown_state_ends_the_run_and_is_never_bought_twice(tmp_path: Path) -> None:
    with serving(states="pending") as url:
        for _ in range(2):
            with pytest.raises(
                SaeflowError, match="is still 'pending'; start again to wait for it"
            ):
                ask(questions(20), service(url, tmp_path, mode="batch", poll=0.001))
        assert stats(url)["batches"] == 1


def test_a_batch_that_another_job_waits_for_counts_among_the_calls(tmp_path: Path) -> None:
    with serving(states="pending") as url:
        with pytest.raises(SaeflowError, match="pending"):
            ask(questions(20), service(url, tmp_path, mode="batch", poll=0.001))
        with pytest.raises(SaeflowError, match=r"calls\.max_calls"):
            ask(questions(60)[20:], service(url, tmp_path, mode="batch", poll=0.001, max_calls=50))
        assert stats(url)["batches"] == 1


# --- the ledger -----------------------------------------------------------------------------------


def damaged(damage: str, url: str, path: Path) -> Service:
    """A judge with a ledger of 20 answers to which something has happened that SQLite does not
    notice."""
    ask(questions(20), service(url, path, mode="batch", poll=0.01))
    with sqlite3.connect(path / "ledger.sqlite") as connection:
        connection.execute("UPDATE batches SET ended = 0")
        connection.execute(damage)
    return service(url, path)


@pytest.mark.parametrize(
    "damage", ["reason = x'ff', attempts = x'00'", "answer = x'ff'", "checksum = 'x'"]
)
def test_an_answer_that_is_no_text_any_more_is_asked_for_again(damage: str, tmp_path: Path) -> None:
    with serving() as url:
        used = damaged(f"UPDATE answers SET {damage}", url, tmp_path)
        assert [answer.value for answer in ask(questions(20), used)] == SCORES[:20]
        assert stats(url)["answered"] == 40


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE spent SET usd = 'x'",
        "UPDATE spent SET calls = x'00'",
        "UPDATE spent SET calls = -1",
        "DELETE FROM spent",
        "UPDATE batches SET keys = '[1'",
        "UPDATE batches SET keys = '[[1]]'",
        "UPDATE batches SET keys = x'ff'",
    ],
)
def test_a_ledger_whose_sums_or_batches_are_damaged_is_told_in_one_sentence(
    damage: str, tmp_path: Path
) -> None:
    with serving() as url:
        ledger = damaged(damage, url, tmp_path).ledger
    with pytest.raises(SaeflowError, match=r"the ledger cannot be used \(.*\); check the disk"):
        ledger.spent() if "spent" in damage else ledger.open_batches()


# --- what the tests above are made of -------------------------------------------------------------


class Loopback:
    """A server whose answer is a function of the number of requests so far; holds what it saw
    last."""

    seen: list[tuple[str, dict[str, str]]]

    def __init__(self, answer: object) -> None:
        seen = Loopback.seen = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    seen.append((self.path, dict(self.headers)))
                    status, body = answer(len(seen))  # type: ignore[operator]
                head = (
                    f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: "
                    f"{len(body)}\r\n\r\n"
                )
                self.wfile.write(head.encode() + body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
