"""Upload a packed model to the Hub; what is there already is not sent again."""

import logging
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from powsm.errors import PowsmError
from powsm.model.find import find_model, load_model

log = logging.getLogger(__name__)


class UploadError(PowsmError):
    """An upload that did not happen; the message says what to do."""


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Make the repository if it is not there, and commit the folder in one go.

    The token is huggingface_hub's: HF_TOKEN, or that of `hf auth login`.

    Args:
        folder: `<exp>/packed`.
        repo: `name/of_the_model`.
        private: of a repository that is made.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: the folder is no whole model.
        UploadError: the Hub refuses, or cannot be reached.
    """
    load_model(find_model(folder))
    api = HfApi(library_name="espnet")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"Upload {folder.name}"
        )
    except HFValidationError as err:
        raise UploadError(f"--hf_repo {repo}: not a name like user/model") from err
    except HfHubHTTPError as err:
        raise UploadError(_refusal(err, repo)) from err
    except httpx.TransportError as err:
        raise UploadError(
            f"{repo}: the connection to {constants.ENDPOINT} failed "
            f"({type(err).__name__}); run stage 15 again: files that arrived whole are "
            "not sent again"
        ) from err
    return str(done.commit_url)


def _refusal(err: HfHubHTTPError, repo: str) -> str:
    status = err.response.status_code
    advice = {
        401: "set HF_TOKEN, or log in with `hf auth login`",
        403: f"the token may not write to {repo}: it needs the write permission there",
        404: f"there is no {repo.partition('/')[0]} that the token may write for",
        413: "a file is larger than the Hub takes",
        429: "too many requests; try again in an hour",
    }.get(status, "try again later: files that arrived whole are not sent again")
    return f"{repo}: {constants.ENDPOINT} answered {status}; {advice}"
