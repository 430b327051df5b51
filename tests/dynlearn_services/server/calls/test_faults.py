import numpy as np
import pytest

from dynlearn.errors import InvalidInput
from dynlearn_services.server.calls.faults import require_finite_beginning, require_near
from dynlearn_services.server.models.loaded_model import LoadedModel


@pytest.mark.parametrize(
    ("value", "message"),
    [(2e6, "got some 2e\\+06 standard deviations away"), (np.inf, "got some inf standard")],
)
def test_an_observation_far_from_the_data_is_its_callers_fault(make_model, value, message):
    loaded = LoadedModel("arm", "1", make_model())
    observation = np.zeros((3, 5), np.float32)
    require_near(loaded, observation)
    observation[1, 2] = value
    with pytest.raises(InvalidInput, match=f"observation: .* model arm .*{message}"):
        require_near(loaded, observation)


def test_a_horizon_is_blamed_where_its_first_step_is_finite():
    steps = np.zeros((4, 2))
    require_finite_beginning(steps)
    steps[3, 1] = np.nan
    with pytest.raises(InvalidInput, match="got 4 steps, of which 3 are; ask for fewer"):
        require_finite_beginning(steps)
    # The model's fault, or that of the observation.
    steps[0, 0] = np.inf
    require_finite_beginning(steps)
