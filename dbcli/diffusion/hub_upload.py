"""Giving a model to the Hugging Face hub. Everything goes through one `HfApi` object, which the caller hands in."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbcli.deadline import Answer, within
from dbcli.diffusion.bases.hub import DEADLINE_SECONDS, is_repository, unreachable
from dbcli.errors import DiskFull, MissingError, Refused, UsageError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
INSTEAD = "dreambooth export RUN --to diffusers, lora or kohya writes the files here, to be uploaded later"


def make_api() -> Any:
    """The hub as the person is logged in to it; huggingface_hub finds the token."""
    from huggingface_hub import HfApi

    return HfApi(library_name="dreambooth-cli")


def check_repository(name: str) -> str:
    """Returns `name` or `owner/name` if it can be a repository; UsageError otherwise."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and not listed

    try:
        # The library refuses some more names, such as those that end in a dot or `.git`, when the hub is asked.
        validate_repo_id(name)
        is_valid = is_repository(name) or NAME_PATTERN.fullmatch(name) is not None
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"{name!r} is not a valid repository name.", hint="--repo my-dog, or --repo owner/my-dog")
    return name


def full_name(api: Any, name: str) -> str:
    """`owner/name`, the owner being the person themselves where none is named.

    Raises Unreachable within seconds, MissingError where nobody is logged in.
    """
    account = _asked(api.whoami, "your login")
    return name if "/" in name else f"{account['name']}/{name}"


def is_public(api: Any, repository: str) -> bool | None:
    """Whether a repository that exists can be seen by all; None where there is none. Raises Unreachable."""
    if not _asked(lambda: api.repo_exists(repository), repository):
        return None
    return not _asked(lambda: api.model_info(repository), repository).private


def upload(api: Any, folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Makes the repository where it is not there yet and uploads a folder in one commit; returns its address.

    Raises Unreachable, or Refused where the hub does not allow it.
    """
    made = _asked(lambda: api.create_repo(repository, private=private, exist_ok=True, repo_type="model"), repository)
    _answered(lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message), repository)
    return str(made)


def _asked(question: Callable[[], Answer], what: str) -> Answer:
    """A small question, which may take seconds only."""
    return _answered(lambda: within(DEADLINE_SECONDS, question), what)


def _answered(question: Callable[[], Answer], what: str) -> Answer:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        return question()
    except (DiskFull, MemoryError):
        raise
    except LocalTokenNotFoundError as error:
        raise MissingError("Nobody is logged in to the hub on this machine.", hint="hf auth login") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise MissingError("The hub rejects the login of this machine.", hint="hf auth login") from error
        if status == 403:
            raise Refused(f"The hub does not let you write to {what}.", hint="choose a --repo of your own") from error
        raise unreachable(what, error, INSTEAD) from error
    except Exception as error:  # sockets, proxies, certificates and the hub itself fail in many types
        raise unreachable(what, error, INSTEAD) from error
