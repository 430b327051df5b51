"""A model's folder: ``config.json``, its spec, and ``model.safetensors``, its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel

from dynlearn.config.choices import PredictionPrecision
from dynlearn.errors import CorruptData
from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec
from dynlearn.storage.files import write_json
from dynlearn.storage.tensors import load_tensors, save_tensors

SPEC_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def write_model(folder: Path, spec: BaseModel, regressor: EnsembleRegressor) -> None:
    """Write a spec and a regressor's weights into an existing folder."""
    write_json(folder / SPEC_FILE, spec)
    save_tensors(folder / WEIGHTS_FILE, regressor.state_dict())


def read_regressor(
    folder: Path,
    spec: RegressorSpec,
    device: str | torch.device = "cpu",
    precision: PredictionPrecision = "float32",
) -> EnsembleRegressor:
    """Return the regressor whose weights `write_model` has written.

    Args:
        folder: of the model.
        spec: what the folder's own spec says of the regressor.
        device: where to predict.
        precision: of the products between hidden layers.

    Raises:
        NotFound: there are no weights.
        CorruptData: they are truncated, not finite, or do not fit the spec.
    """
    regressor = EnsembleRegressor(spec)
    tensors = load_tensors(folder / WEIGHTS_FILE)
    try:
        # Models of before were not told what their data resolved.
        tensors.setdefault("least_std", regressor.least_std)
        regressor.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise CorruptData(
            f"expected weights that fit {folder / SPEC_FILE}, got {folder / WEIGHTS_FILE} "
            f"({reason}); publish the model anew"
        ) from error
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise CorruptData(
            f"expected finite weights in {folder / WEIGHTS_FILE}, got NaN or infinity; "
            "publish the model anew"
        )
    if precision == "bfloat16":
        regressor.use_bfloat16()
    return regressor.to(device).eval()
