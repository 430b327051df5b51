import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.distributions.mixture import Prediction
from dynlearn.protocol.names import OUTPUTS
from dynlearn.registry import Registry
from dynlearn.training.provenance import (
    ENVIRONMENT_KWARGS,
    ENVIRONMENT_SEEDS,
    write_training,
)
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.metadata import describe


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def rows(draw_rows):
    return draw_rows(7)


def test_only_what_is_asked_for_is_computed(model, rows, monkeypatch):
    loaded = LoadedModel("arm", "1", model)
    monkeypatch.setattr(Prediction, "epistemic", None)
    outputs = [OUTPUTS["mean"], OUTPUTS["variance"], OUTPUTS["aleatoric"]]
    assert list(loaded.compute(Inputs(*rows), outputs)) == outputs
    with pytest.raises(AttributeError):
        loaded.compute(Inputs(*rows), [OUTPUTS["epistemic"]])


def test_clients_are_told_of_what_environment_the_data_were(model, tmp_path):
    def write(folder):
        model.save(folder)
        made = {
            "environment": "Walk-v0",
            ENVIRONMENT_KWARGS: {"g": 2.0},
            ENVIRONMENT_SEEDS: [0, 99],
        }
        write_training(folder, TrainConfig(dataset="d", model="arm"), made, "test", [])

    version = Registry(tmp_path).publish("arm", write)
    loaded = LoadedModel.load(version, torch.device("cpu"), "float32")
    told = describe(loaded, ["1"], None, None).parameters
    assert (told.environment, told.env_kwargs, told.seed_range) == ("Walk-v0", {"g": 2}, (0, 99))
    assert type(told).model_validate_json(told.model_dump_json()) == told
