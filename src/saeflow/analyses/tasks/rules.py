"""What the rules of tasks say of a study."""

from __future__ import annotations

from pathlib import Path

from saeflow.analyses import Study
from saeflow.analyses.tasks import saes
from saeflow.analyses.tasks.lists import file_of, read_lists
from saeflow.analyses.tasks.settings import Tasks
from saeflow.workflow import Workflow, repeated


class TaskFiles:
    """The lists of a study's tasks, which are read before any job, so that what is wrong with one
    is told then."""

    def __init__(self, flow: Workflow[Study], own: Tasks) -> None:
        named = {task: file_of(own.lists, task) for task in own.lists.names}
        self.files = {task: flow.sought(path) for task, path in named.items() if path}
        files = {task: Path(path) for task, path in self.files.items()}
        read_lists(own.lists, own.prompts, files, flow.study.seed)

    @property
    def options(self) -> list[str]:
        """Where each list lies, as the command's options."""
        return repeated("--list", [f"{task}={path}" for task, path in self.files.items()])


READS = TaskFiles


def layer_options(flow: Workflow[Study], own: Tasks) -> list[str]:
    """The layers of the SAEs in which vectors are cleaned, as the command's options."""
    layers = {flow.study.hook_of(name).split(".")[1] for name in saes(flow.study, own)}
    return repeated("--layer", sorted(layers, key=int))
