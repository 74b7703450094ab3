"""What steering and judging take, and what they read from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saeflow.analyses.effects.cost import in_sae
from saeflow.analyses.steering.goal_files import read_goal_of
from saeflow.analyses.steering.settings import Steering
from saeflow.config import read_questions
from saeflow.config.shipped import shipped_or_own
from saeflow.counting import counted
from saeflow.judging.goals import names_like
from saeflow.planning.work import Need, Scope, StagePlan, key_needs

if TYPE_CHECKING:
    from saeflow.analyses import Study

QUESTION_TOKENS = 3_000  # of all multiple-choice questions, each with every answer
PROMPT_TOKENS = 150  # of a question to the judge, without the completion


def work(study: Study, own: Steering, scope: Scope) -> list[StagePlan]:
    """Completions of all goals, methods and scales, and their scores."""
    goals, written = len(own.goals.names), own.completions
    cells = goals * len(own.vectors.methods)
    texts = len(written.scales) * len(written.prompts) * written.samples
    in_words = len(own.prompting.methods) if own.prompting else 0
    texts_in_words = 2 * len(written.prompts) * written.samples  # bare, and behind the words
    every = cells * texts + goals * in_words * texts_in_words
    every += goals * searched_points(study, own) * searched_texts(own)
    completed = every * written.new_tokens
    side = 0
    if effects := study.effects:
        rollouts = len(effects.measurement.prompts) * effects.measurement.samples
        side = cells * rollouts * effects.measurement.new_tokens
    examined = 0
    if measured := own.capability:
        points = cells * len(written.scales) + goals * in_words
        examined = points * (measured.tokens + QUESTION_TOKENS)
    examined += goals * own.search.tokens if own.search else 0
    judged = completed if own.judge.traits.needs_losses else 0
    scores = judge_calls(study, own) or 2 * every
    return [
        StagePlan(
            "steering",
            1 + goals * (2 + sum(map(bool, (effects, own.capability, in_words, own.search)))),
            completed + side + examined,
            (completed + examined) * scope.flop() + side * in_sae(study, scope),
            every * 6 * written.new_tokens,
            f"{cells} goals × methods × {counted(texts, 'completion')}",
        ),
        StagePlan(
            "judging",
            2 * goals + 1 + bool(own.pairs) + bool(own.search),
            judged,
            judged * scope.flop(),
            every * 40,
            f"{counted(scores, 'score')} by '{own.judge.kind}'",
        ),
    ]


def searched_points(study: Study, own: Steering) -> int:
    """Vectors and scales that a goal's search tries, the unsteered model among them."""
    if not (search := own.search):
        return 0
    layer = int(study.hook.split(".")[1])
    layers = sum(len(search.layers_of(method, layer)) for method in search.methods)
    return 1 + layers * len(search.scales)


def searched_texts(own: Steering) -> int:
    """Completions of each of them."""
    samples = (own.search and own.search.samples) or own.completions.samples
    return samples * len(own.completions.prompts)


def judge_calls(study: Study, own: Steering) -> int:
    """Calls that the judge makes at most, if nothing is in the ledger yet; 0 for a judge that makes
    none."""
    if not own.judge.traits.is_hosted:
        return 0
    goals, methods, written = len(own.goals.names), len(own.methods), own.completions
    of_prompts = len(written.prompts) * written.samples
    points = len(own.vectors.methods) * len(written.scales)
    points += 2 * (methods - len(own.vectors.methods))
    criteria = 2 + 3 * ("three_way" in own.judge.protocols)
    pairs = goals * methods * (methods - 1) // 2 * own.pairs * 2
    texts = points * of_prompts + searched_points(study, own) * searched_texts(own)
    return (goals * texts * criteria + 2 * pairs) * own.judge.repeats


def remarks(study: Study, own: Steering) -> list[str]:
    """How often the judge is called, and what that costs."""
    from saeflow.endpoint.prices import DATE, cost_of
    from saeflow.endpoint.service import ANSWER_TOKENS

    if not (calls := judge_calls(study, own)):
        return []
    cost = cost_of(str(own.judge.model), study.calls.price, study.calls.mode == "batch")
    tokens = PROMPT_TOKENS + 2 * own.completions.new_tokens
    usd = cost.usd(calls * tokens, calls * ANSWER_TOKENS)
    price = (
        "its price is not known; set calls.price"
        if usd is None
        else f"about US$ {usd:,.2f}, prices of {DATE}"
    )
    return [f"judge {own.judge.model}: at most {counted(calls, 'call')}, {price}"]


def needs(study: Study, own: Steering) -> list[Need]:
    """The goals' files, of which one that is there is read, so that what is wrong with it is said
    now; and the judge's key, unless the judge has answered before."""
    directory = shipped_or_own(own.goals.directory)
    files = {name: directory / f"{name}.yaml" for name in own.goals.names}
    outside = []
    for name, file in files.items():
        if file.is_file():
            read_goal_of(study, own, file)
        near = names_like(name, directory)
        outside.append(Need("steering.goals", str(file), file.is_file(), meant=near))
    outside += key_needs(study.calls, own.judge.traits.is_hosted)
    if own.capability and own.capability.questions:
        file = shipped_or_own(own.capability.questions)
        if file.is_file():
            read_questions(file)
        outside.append(Need("steering.capability.questions", str(file), file.is_file()))
    return outside
