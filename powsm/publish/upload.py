"""Upload a packed model to the Hub; what is there already is not sent again."""

from pathlib import Path

from powsm.hub import upload_model
from powsm.model.find import find_model
from powsm.model.weights import load_model


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Check that a folder is a whole model, and commit it to the Hub in one go.

    The token is huggingface_hub's: HF_TOKEN, or that of `hf auth login`.

    Args:
        folder: `<exp>/packed`.
        repo: `name/of_the_model`.
        private: of a repository that is made.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: the folder is no whole model.
        HubError: the Hub refuses, or cannot be reached.
    """
    load_model(find_model(folder))
    return upload_model(folder, repo, private=private)
