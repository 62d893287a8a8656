"""Bundles on the Hugging Face Hub: a repository with model.gan, a model card and a preview.

Where the Hub is, who asks and where downloads are kept is huggingface_hub's own business.
"""

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ganinfer.errors import (
    BundleError,
    BundleNotFound,
    DataError,
    DataNotFound,
    GanError,
    missing_extra,
)

MODEL = "model.gan"
CARD = "README.md"
PREVIEW = "preview.png"

# Of an error, its kind that says that there is nothing.
_NOT_FOUND: dict[type[GanError], type[GanError]] = {
    BundleError: BundleNotFound,
    DataError: DataNotFound,
}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_LOG_IN = "log in with: hf auth login"


def fetched(name: str) -> tuple[str, Path]:
    """A bundle of the Hub, downloaded unless it is in huggingface_hub's cache.

    Args:
        name: owner/name[@revision], of a branch, tag or commit.

    Returns:
        hf://owner/name@commit, and the file in the cache, which is brought up to date if the Hub
        can be reached.

    Raises:
        BundleError: it cannot be had.
    """
    repository, _, revision = name.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise BundleError(f"hf://{name}: expected hf://owner/name or hf://owner/name@revision")
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError as error:
        raise missing_extra("huggingface_hub", error) from None
    with errors_in_words(f"hf://{name}"):
        file = Path(hf_hub_download(repository, MODEL, revision=revision or None))
    return f"hf://{repository}@{file.parent.name}", file  # .../snapshots/<commit>/model.gan


@dataclass(frozen=True)
class Pushed:
    """What `push` did.

    Attributes:
        url: of the commit. card_kept: there was a model card that somebody has edited.
    """

    url: str
    card_kept: bool


def push(
    path: Path, repository: str, *, private: bool = False, revision: str | None = None
) -> Pushed:
    """Upload a bundle in one commit; the repository and the branch are made if they are not there.

    Args:
        path: the bundle, in either form; it is uploaded as one file.
        repository: owner/name.
        private: for nobody else to see.
        revision: the branch; the repository's main one by default.

    Raises:
        BundleError: the bundle is damaged, or the Hub does not take it.
    """
    from ganinfer.bundle.archive import Bundle
    from ganinfer.bundle.card import model_card
    from ganinfer.bundle.tree import write_tree

    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ModuleNotFoundError as error:
        raise missing_extra("huggingface_hub", error) from None
    name = f"hf://{repository}" + (f"@{revision}" if revision else "")
    if not _REPOSITORY.fullmatch(repository):
        raise BundleError(f"{repository}: expected owner/name, a repository on the Hub")
    with Bundle(path) as bundle:
        tree, manifest = bundle.tree(), bundle.manifest
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / MODEL
        write_tree(single, tree, single_file=True)
        files: dict[str, Path | bytes] = {MODEL: single, CARD: model_card(manifest, name)}
        if PREVIEW in manifest.files:
            files[PREVIEW] = tree[PREVIEW]
        with errors_in_words(name):
            api = HfApi()
            # None leaves it to the owner's settings, which may be private as well.
            api.create_repo(repository, private=private or None, exist_ok=True)
            if private and not api.repo_info(repository).private:
                raise BundleError(
                    f"{name}: is there and is public; make it private, or leave --private out"
                )
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            if card_kept := _card_is_edited(repository, revision):
                del files[CARD]
            commit = api.create_commit(
                repository,
                [CommitOperationAdd(place, content) for place, content in files.items()],
                commit_message=f"Upload a bundle of family {manifest.model.family}",
                revision=revision,
            )
    return Pushed(commit.commit_url, card_kept)


def _card_is_edited(repository: str, revision: str | None) -> bool:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from ganinfer.bundle.card import is_untouched

    try:
        card = Path(hf_hub_download(repository, CARD, revision=revision))
    except RemoteEntryNotFoundError:
        return False
    return not is_untouched(card.read_bytes())


@contextmanager
def errors_in_words(name: str, kind: type[GanError] = BundleError) -> Iterator[None]:
    """What huggingface_hub raises becomes an error of this kind that says what to do."""
    # Of the HTTP client that this huggingface_hub is built on, whichever that is.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    nothing = (RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, nothing):
            kind = _NOT_FOUND.get(kind, kind)
        raise kind(f"{name}: {_in_words(error)}") from None


def _in_words(error: BaseException) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError | RuntimeError) and error.__cause__:
        error = error.__cause__  # what happened on the way to the Hub
    said = str(error).strip().partition("\n")[0]
    match error:
        case errors.HFValidationError():
            return "not a name that a repository can have; expected owner/name"
        case errors.LocalTokenNotFoundError():
            return f"the Hub wants to know who you are; {_LOG_IN}"
        case errors.GatedRepoError():
            return f"its owner grants access one by one; ask on its page, and {_LOG_IN}"
        case errors.RepositoryNotFoundError():
            return f"there is no such repository, or not for you; check the name, or {_LOG_IN}"
        case errors.RevisionNotFoundError():
            return "there is no such branch, tag or commit; leave @revision out for the main one"
        case errors.RemoteEntryNotFoundError():
            return f"no {MODEL} in this repository; put one there with: gan push"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"you may not do this ({said}); {_LOG_IN}, with a token that may"
        case errors.HfHubHTTPError():
            return f"the Hub refused ({error.server_message or said}); try again later"
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, and the cache has no answer; unset it, and try again"
        case OSError() if error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"huggingface_hub's cache, {constants.HF_HUB_CACHE}, cannot be used"
                f" ({error.strerror}); make room there and let this user write, or choose another"
                " folder with HF_HOME"
            )
        case ValueError() | RuntimeError():
            return f"the Hub does not take this ({said})"
    return f"the Hub cannot be reached ({said}); check the connection"
