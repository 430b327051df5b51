import pytest

from dynlearn.distributions.mixture import Prediction
from dynlearn.protocol.names import OUTPUTS
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel


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
