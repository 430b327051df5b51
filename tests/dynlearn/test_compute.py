import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dynlearn.compute import pick_device, torch_threads
from dynlearn.errors import InvalidInput


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(InvalidInput, match="use --device cpu"):
        pick_device("cuda")


def test_threads_have_torch_to_themselves_and_leave_no_trace() -> None:
    own = torch.get_num_threads()
    barrier = threading.Barrier(2, timeout=30)

    def work(number: int) -> tuple[int, int]:
        barrier.wait()
        return number, torch.get_num_threads()

    with torch_threads(2, "test") as pool:
        assert list(pool.map(work, [5, 6])) == [(5, 1), (6, 1)]
    assert torch.get_num_threads() == own
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == own
