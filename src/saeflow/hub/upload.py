"""Puts files into a repository of a hub, in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, constants

from saeflow.errors import SaeflowError
from saeflow.hub.mishaps import patiently, told_in_one_sentence


class Target(NamedTuple):
    """Where files go."""

    repo: str
    repo_type: str
    private: bool
    """Of a repository that does not exist yet."""


def upload(target: Target, files: Mapping[str, Path], message: str) -> str:
    """Add or replace files of a repository, which is made if need be; all or none of them.

    Args:
        target: the repository.
        files: by their names in it.
        message: of the commit.

    Returns:
        The commit.

    Raises:
        SaeflowError: no network, no token, or a token that may not do this.
    """
    if constants.is_offline_mode():
        raise SaeflowError(
            f"publish: HF_HUB_OFFLINE is set, so {target.repo} cannot be reached; unset it"
        )
    api = HfApi()
    with told_in_one_sentence("publish", target.repo, target.repo_type):
        patiently(
            lambda: api.create_repo(
                target.repo, repo_type=target.repo_type, private=target.private, exist_ok=True
            )
        )
        additions = [CommitOperationAdd(name, path) for name, path in files.items()]
        made = patiently(
            lambda: api.create_commit(
                target.repo,
                additions,
                repo_type=target.repo_type,
                commit_message=message,
                num_threads=1,
            )
        )
    return str(made.oid)
