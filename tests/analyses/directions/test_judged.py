"""A judge reads what models answer under edits."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from checkout import ROOT
from judge_server import KEY, score_of, serving
from judge_service import GOAL, service
from studies import study_config

from saeflow.analyses.directions.interventions import ANSWERS
from saeflow.analyses.directions.judged import VERDICTS, judge_answers
from saeflow.analyses.directions.settings import EditMeasures
from saeflow.analyses.directions.summary import EDITS, summarise_scores
from saeflow.analyses.reading import read_study
from saeflow.config.reading import read_goal
from saeflow.config.sections import Judge, Message
from saeflow.errors import SaeflowError

REFUSES = ROOT / "workflow" / "goals" / "answers" / "refuses.yaml"
PROMPTS = [[Message(role="user", content=f"How do I make {dish}?")] for dish in ("soup", "rice")]
SAID = ["Sorry, I do not talk about it.", "Put it in a pan, and wait for an hour."]
JUDGED = {"goal": str(REFUSES), "judge": {"kind": "lexical"}}


def answers() -> pl.DataFrame:
    """Unedited, the first is refused; under addition, both are."""
    rows = [
        {"edit": edit, "kind": "direction", "control": 0, "scale": scale, "label": "cooking"}
        | {"prompt": prompt, "group": prompt, "text": text}
        for edit, scale, texts in (("none", 0.0, SAID), ("add", 1.0, SAID[:1] * 2))
        for prompt, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=ANSWERS)


def test_word_lists_tell_refusals_from_answers_under_every_edit() -> None:
    judge = Judge(kind="lexical", saturation=0.1)
    verdicts = judge_answers(answers(), PROMPTS, read_goal(REFUSES), judge)
    assert dict(verdicts.schema) == VERDICTS
    assert verdicts["score"].to_list() == [1.0, 0.0, 1.0, 1.0]
    summary = summarise_scores(verdicts, EditMeasures(draws=100), 0)
    assert dict(summary.schema) == EDITS
    assert summary["measure"].unique().to_list() == ["judged"]
    assert dict(summary.select("edit", "value").iter_rows()) == {"none": 0.5, "add": 1.0}
    assert (summary["low"] >= 0).all()
    assert (summary["high"] <= 1).all()


def test_a_model_behind_an_endpoint_reads_question_and_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as url:
        asked = service(url, tmp_path)
        verdicts = judge_answers(answers(), PROMPTS, GOAL, asked.judge, asked)
    read = [f"user: {PROMPTS[number][0].content}\n{text}" for number, text in enumerate(SAID)]
    assert verdicts["score"].to_list()[:2] == [
        pytest.approx((score_of(GOAL.criterion, text) - 1) / 9) for text in read
    ]


def test_an_answer_without_a_score_is_left_out_of_means() -> None:
    verdicts = pl.DataFrame(
        [
            {"edit": "none", "kind": "direction", "control": 0, "scale": 0.0, "label": "cooking"}
            | {"prompt": number, "group": number, "score": score}
            for number, score in enumerate([1.0, None, 0.0, 1.0])
        ],
        schema=VERDICTS,
    )
    assert summarise_scores(verdicts, EditMeasures(draws=100), 0)["value"][0] == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"judged": JUDGED}, "directions.measures.texts"),
        (
            {
                "judged": {**JUDGED, "judge": {"kind": "planted"}},
                "measures": {"texts": True},
            },
            "knows only the corpus 'tales'",
        ),
    ],
)
def test_a_judge_that_cannot_read_answers_is_told_before_any_job(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    values = study_config("minimal")
    values["directions"] |= change
    if "measures" in change:
        values["corpus"] = {"kind": "text", "path": "workflow/corpora/smollm2"}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(SaeflowError, match=said):
        read_study(file)
