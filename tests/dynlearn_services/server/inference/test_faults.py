import pytest
import torch

from dynlearn.errors import Unavailable
from dynlearn_services.server.inference.faults import as_told, is_shortage


def test_a_shortage_of_memory_passes():
    with pytest.raises(RuntimeError) as fault:
        torch.empty(2**60)
    assert is_shortage(fault.value)
    told = as_told(fault.value)
    assert isinstance(told, Unavailable)
    assert "expected enough memory" in str(told)
    assert told.__cause__ is fault.value


def test_other_faults_are_told_as_they_are():
    fault = RuntimeError("expected two columns")
    assert as_told(fault) is fault
    assert not is_shortage(fault)


@pytest.mark.parametrize("fault", [StopIteration(3), KeyboardInterrupt()])
def test_what_no_future_takes_is_told_by_its_name(fault):
    told = as_told(fault)
    assert type(told) is RuntimeError
    assert type(fault).__name__ in str(told)
