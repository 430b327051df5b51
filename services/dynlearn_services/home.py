"""The one folder under which datasets, models and runs live."""

import os
import re
from pathlib import Path

from dynlearn.errors import InvalidInput
from dynlearn.storage.files import check_name


class Home:
    """Where everything lives under one root.

    ``datasets/``, ``models/`` (the registry), ``runs/`` (checkpoints and TensorBoard logs),
    ``evaluations/``, ``plans/`` (pictures of played episodes), ``demo/`` and ``tokens.json`` (who
    may ask the services).
    """

    def __init__(self, root: str | Path | None = None):
        """Take ``root``, else the environment variable DYNLEARN_HOME, else ``./dynlearn-home``.

        Raises:
            InvalidInput: its name is not UTF-8, which datasets are not opened without, or it is
                no folder.
        """
        self.root = Path(root or os.environ.get("DYNLEARN_HOME") or "dynlearn-home").absolute()
        try:
            str(self.root).encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"expected a home folder whose name is UTF-8, got {os.fsencode(self.root)!r}; "
                "name another with --home or DYNLEARN_HOME"
            ) from error
        for place in (self.root, *self.root.parents):
            if place.exists() and not place.is_dir():
                raise InvalidInput(
                    f"expected a home folder, got {place}, which is none; name another with "
                    "--home or DYNLEARN_HOME"
                )

    @property
    def models(self) -> Path:
        """The registry's folder."""
        return self.root / "models"

    @property
    def tokens(self) -> Path:
        """The file of the tokens that services ask for."""
        return self.root / "tokens.json"

    def dataset(self, name: str) -> str:
        """Return where a dataset lives; a URI such as ``s3://bucket/name`` is returned as it is."""
        return name if "://" in name else str(self.root / "datasets" / check_name(name, "dataset"))

    def run(self, name: str) -> Path:
        """Return the folder of a training run: its checkpoints and its TensorBoard log."""
        return self.root / "runs" / check_name(name, "model")

    def evaluation(self, name: str) -> Path:
        """Return the folder of an evaluation's figures and card."""
        return self.root / "evaluations" / check_name(name, "evaluation")

    def plan(self, model: str) -> Path:
        """Return the folder of the pictures of episodes played with a model."""
        return self.root / "plans" / check_name(re.sub("[/@]", "-", model), "model")

    def require_writable(self, *folders: Path) -> None:
        """Create the root, and the folders in it that are about to be written to.

        Raises:
            InvalidInput: one cannot be created or written to.
        """
        for folder in (self.root, *folders):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                writable = os.access(folder, os.W_OK | os.X_OK)
            except OSError:
                writable = False
            if not writable:
                raise InvalidInput(
                    f"expected a home folder that can be written to, got {folder}; "
                    "name another with --home or DYNLEARN_HOME"
                )
