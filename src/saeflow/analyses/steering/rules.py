"""What the rules of steering say of a study."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.steering.goal_files import read_goal_of
from saeflow.analyses.steering.methods import PLANTED, method_of
from saeflow.analyses.steering.settings import Steering
from saeflow.config import read_questions
from saeflow.workflow import Workflow, digest


class GoalFiles:
    """The YAML files of a study's goals, and that of its multiple-choice questions, which are no
    inputs but params, as settings are: what they say is a trigger, and where they lie and how old
    they are is none. So a fresh checkout of the same commit makes nothing anew.
    """

    def __init__(self, flow: Workflow[Study], steering: Steering) -> None:
        goals = steering.goals
        self._files = {name: flow.sought(goals.directory, f"{name}.yaml") for name in goals.names}
        self._goals = {
            name: read_goal_of(flow.study, steering, Path(file))
            for name, file in self._files.items()
        }
        self._prompting = steering.prompting
        named = steering.capability and steering.capability.questions
        self._questions = flow.sought(named) if named else None
        self._asked = read_questions(Path(self._questions)) if self._questions else []

    def files(self, wildcards: Any, input: Any) -> list[str]:
        """A param: all files."""
        return list(self._files.values())

    def file(self, wildcards: Any, input: Any) -> str:
        """A param: the file of one goal."""
        return self._files[wildcards.goal]

    def folder(self, wildcards: Any, input: Any) -> str:
        """A param: where they lie."""
        return os.path.dirname(next(iter(self._files.values())))

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what is said of all goals."""
        return digest(self._goals.values())

    def said_of_one(self, wildcards: Any) -> str:
        """A param: the same of one goal."""
        return digest([self._goals[wildcards.goal]])

    def questions(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the option of the file of multiple-choice questions, where there is one."""
        return ["--questions", self._questions] if self._questions else []

    def asked(self, wildcards: Any) -> str:
        """A param, and so a trigger: what they ask."""
        return digest(self._asked)

    def examples(self, wildcards: Any) -> str:
        """A param: what is said of the latents of all goals, and of the texts that choose them."""
        read = {"positive", "negative", "latents"}
        said = [goal.model_dump_json(include=read) for goal in self._goals.values()]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def topic(self, wildcards: Any) -> str:
        """A param: the planted topic of one goal."""
        return str(self._goals[wildcards.goal].topic)

    def prompting(self, wildcards: Any) -> str:
        """A param: what methods in words say, as JSON; null where there are none."""
        return self._prompting.model_dump_json(ensure_ascii=True) if self._prompting else "null"

    def vector_options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the options of the command that builds vectors, for those of `vector_inputs`
        that there are."""
        options = []
        if approximator := input.get("approximator"):
            options += ["--approximator", approximator]
        if recovery := input.get("recovery"):
            goal = self.file(wildcards, input)
            options += ["--recovery", recovery, "--goal-file", goal]
        return options


READS = GoalFiles


def vector_inputs(flow: Workflow[Study]) -> dict[str, Any]:
    """What some methods are built from: the approximator of effects, and, for planted topics, the
    latents that detect them."""
    methods = flow.study.steering.vectors.methods if flow.study.steering else []
    sae = flow.study.target_sae
    inputs: dict[str, Any] = {}
    if any(method_of(method).needs_effects for method in methods):
        inputs["approximator"] = flow.artifact(f"effects/{sae}/approximator.safetensors")
    if any(method.endswith(PLANTED) for method in methods):
        inputs["recovery"] = f"results/{{study}}/saes/{sae}/recovery.parquet"
    return inputs


def judge_inputs(flow: Workflow[Study]) -> dict[str, Any]:
    """What the judge reads besides the completions: the model, where coherence is measured by its
    loss."""
    steering = flow.study.steering
    if not steering or not steering.judge.traits.needs_losses:
        return {}
    return flow.model_inputs(f"models/{flow.study.model.name}")


def goal_vectors(
    flow: Workflow[Study], goal: str, methods: Sequence[str] | None = None
) -> list[Any]:
    """A goal's steering vectors, one per method; by default all."""
    if methods is None:
        methods = flow.study.steering.vectors.methods if flow.study.steering else []
    return [flow.located(f"steering/{goal}/{method}/vector.safetensors") for method in methods]


def searched_vectors(flow: Workflow[Study]) -> list[str]:
    """The folders of the vectors that a search tries, by method and layer."""
    if not flow.study.steering or not (search := flow.study.steering.search):
        return []
    own = int(flow.study.hook.split(".")[1])
    return [
        f"{method}-layer-{layer}"
        for method in search.methods
        for layer in search.layers_of(method, own)
    ]


def calls(flow: Workflow[Study]) -> Callable[[Any, Any], str]:
    """A param: how an endpoint is called and what may be spent, as JSON. No change of it reruns
    anything."""
    return lambda wildcards, input: flow.study.calls.model_dump_json(ensure_ascii=True)
