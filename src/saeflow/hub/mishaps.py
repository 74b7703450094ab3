"""What goes wrong between here and a hub: tried again where that helps, told in one sentence where
it does not."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity
from huggingface_hub import constants, errors

from saeflow.errors import SaeflowError

T = TypeVar("T")
ATTEMPTS = 5
BACKOFF = 1.0
"""Seconds before the second attempt, doubled for each that follows, unless the hub says how long to
wait."""
LONGEST_WAIT = 120.0
LONGEST_REASON = 300
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


def patiently(call: Callable[[], T]) -> T:
    """The result of a call to the hub, made again while the hub is busy, ill or out of reach.

    Raises:
        Exception: what the last attempt raised, or the first that trying again does not mend.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=lambda state: _pause(state, BACKOFF),
        before_sleep=_say,
        reraise=True,
    )
    return retrying(call)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later; what the client looked for in its cache in vain it
    has asked often."""
    if isinstance(error, errors.HfHubHTTPError):
        return status_of(error) in TRANSIENT
    return _of_the_network(error) and not isinstance(error, errors.OfflineModeIsEnabled)


def status_of(error: errors.HfHubHTTPError) -> int:
    """The HTTP status that an error came with; 0 where it came with none."""
    return error.response.status_code if error.response is not None else 0


def _root(error: BaseException) -> BaseException:
    """What made the client look into its cache in vain, or give up an upload, where that is what it
    tells of."""
    wrapped = errors.LocalEntryNotFoundError | errors.FileMetadataError | RuntimeError
    hidden = isinstance(error, wrapped) and error.__cause__
    return hidden or error


def _of_the_network(error: BaseException) -> bool:
    """Connections that failed or broke. The client has changed its HTTP library, and with it these
    classes, twice."""
    return any(
        kind.__name__ in ("TransportError", "RequestException", "ConnectionError")
        for kind in type(error).mro()
    )


def _error_of(state: tenacity.RetryCallState) -> BaseException:
    return (state.outcome and state.outcome.exception()) or Exception()


def _pause(state: tenacity.RetryCallState, first: float) -> float:
    """Seconds to wait: what the hub asks for, else twice as long each time."""
    error = _error_of(state)
    response = getattr(error, "response", None)
    after = response.headers.get("Retry-After", "") if response is not None else ""
    wait = float(after) if after.isdigit() else first * 2 ** (state.attempt_number - 1)
    return min(wait, LONGEST_WAIT)


def _say(state: tenacity.RetryCallState) -> None:
    error = _error_of(state)
    what = type(error).__name__
    if isinstance(error, errors.HfHubHTTPError):
        what = f"answered {status_of(error)}"
    wait = state.next_action.sleep if state.next_action else 0.0
    print(
        f"hub: {what}; attempt {state.attempt_number + 1} of {ATTEMPTS} in {wait:.1f} s",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def told_in_one_sentence(
    key: str, repo: str, repo_type: str, revision: str = "main"
) -> Iterator[None]:
    """Turn what the client raises into a sentence that names the artifact and what to do.

    Args:
        key: of the config, such as ``effects.published``; opens the sentence.
        repo: the repository.
        repo_type: ``model`` or ``dataset``.
        revision: of it.
    """
    try:
        yield
    except SaeflowError:
        raise
    except Exception as error:
        reason = _sentence(_root(error), key, repo, repo_type, revision)
        if not reason:
            raise
        # not `from error`: what the client says holds addresses that are signed for this user
        raise SaeflowError(f"{key}: {reason}") from None


def _sentence(
    error: BaseException, key: str, repo: str, repo_type: str, revision: str
) -> str | None:
    endpoint, where = constants.ENDPOINT, f"{repo}@{revision}"
    page = f"{endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo}"
    match error:
        case errors.GatedRepoError():
            return f"{repo} is gated; accept its terms on {page} and set HF_TOKEN"
        case errors.RevisionNotFoundError():
            return f"{repo} has no revision '{revision}'; correct {key}.revision"
        case errors.RepositoryNotFoundError():
            return (
                f"{repo} is no {repo_type} repository on {endpoint}, or a private one; correct "
                f"{key}.repo or {key}.repo_type, or set HF_TOKEN"
            )
        case errors.EntryNotFoundError() if not isinstance(error, errors.LocalEntryNotFoundError):
            return f"{where} has no such file any more; name another revision"
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return (
                f"{where} is not in the cache, and HF_HUB_OFFLINE is set; fetch it once without it"
            )
        case errors.HfHubHTTPError():
            return _about_status(status_of(error), where, endpoint) + _own_words(error)
    if _of_the_proxy(error):
        return (
            f"{where} cannot be fetched, since a proxy that the environment names is not "
            f"understood ({_one_line(error)}); set HTTPS_PROXY and ALL_PROXY to http://…, or unset "
            "them"
        )
    if _of_xet(error):
        return (
            f"{where} cannot be fetched, since the storage that {endpoint} names is out of reach "
            f"({_one_line(error)}); set HF_HUB_DISABLE_XET=1 to fetch from the hub itself"
        )
    if _of_the_network(error):
        return (
            f"{where} cannot be fetched, since {endpoint} is out of reach "
            f"({type(error).__name__}); check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 "
            "to take it from the cache"
        )
    if isinstance(error, OSError) and not isinstance(error, errors.FileMetadataError):
        return _about_the_disk(error, where)
    if isinstance(error, ValueError) and "README.md" in str(error):
        return (
            f"{endpoint} refuses the card of {repo} ({' '.join(str(error).split())}); correct "
            "publish.licence"
        )
    if isinstance(error, errors.FileMetadataError) or _of_the_client(error):
        # A login page, or a mirror that leaves out what the hub's client reads.
        return (
            f"{endpoint} does not answer for {where} as a hub does ({_one_line(error)}); check "
            "HF_ENDPOINT and whether a proxy asks to log in"
        )
    return None


def _of_the_proxy(error: BaseException) -> bool:
    """A proxy's address that no client knows: ``socks://…``, or socks without the package that
    speaks it."""
    text = str(error).lower()
    return isinstance(error, ValueError | ImportError) and ("proxy" in text or "socks" in text)


def _of_xet(error: BaseException) -> bool:
    """What hf_xet raises; it has no exceptions of its own."""
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("CAS", "Xet", "xet", "Data processing")
    )


def _of_the_client(error: BaseException) -> bool:
    """Whether the hub's client failed at what it read, rather than code of ours."""
    read = isinstance(error, ValueError | TypeError | KeyError | AttributeError)
    frames = traceback.walk_tb(error.__traceback__)
    return read and any(
        frame.f_globals.get("__name__", "").startswith("huggingface_hub") for frame, _ in frames
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} …"


def _own_words(error: errors.HfHubHTTPError) -> str:
    """The reason that the hub gives, which stands in a header of its own."""
    headers = error.response.headers if error.response is not None else {}
    said = " ".join(str(headers.get("X-Error-Message", "")).split())[:LONGEST_REASON]
    return f"; it says: {said}" if said else ""


def _about_status(status: int, where: str, endpoint: str) -> str:
    if status in (401, 403):
        return (
            f"{endpoint} refuses {where} to this token ({status}); set HF_TOKEN to one that may do "
            "this, or unset it"
        )
    if status == 429:
        return (
            f"{endpoint} asks to slow down ({where}, 429); start again in some minutes, or set "
            "HF_TOKEN"
        )
    if status in TRANSIENT:
        return f"{endpoint} answered {status} to {ATTEMPTS} attempts ({where}); start again later"
    return f"{endpoint} answered {status} ({where}); check HF_ENDPOINT"


def _about_the_disk(error: OSError, where: str) -> str | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{where} does not fit on the disk of {constants.HF_HUB_CACHE}; make space there or "
            "set HF_HOME"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{where} cannot be kept, since {constants.HF_HUB_CACHE} may not be written; set "
            "HF_HOME"
        )
    return f"{where} did not arrive whole ({error}); start again" if error.errno is None else None
