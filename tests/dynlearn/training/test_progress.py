import math

from dynlearn.training.progress import Progress


def test_means_leave_out_members_that_diverged() -> None:
    nan, inf = math.nan, math.inf
    report = Progress(3, 9, 1.0, [1, nan, 3], [1, 2, 3], [inf, 1, 2], [nan, nan, 5], stopped=0)
    assert report.means() == {
        "train_nll": 2, "train_rmse": 2, "validation_nll": 1.5, "validation_rmse": 5,
    }  # fmt: skip
    none = Progress(3, 9, 1.0, [nan], [nan], [1], [1], stopped=0)
    assert math.isnan(none.means()["train_nll"])
