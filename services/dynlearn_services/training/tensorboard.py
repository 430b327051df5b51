"""The measures of a training run as TensorBoard shows them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dynlearn.training.progress import Progress


@contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[[Progress], None]]:
    """Give what logs a run's progress under ``tensorboard/`` in a folder."""
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def log(progress: Progress) -> None:
        # Opened at the first figures: a run that is refused leaves no log.
        if not writers:
            writers.append(SummaryWriter(str(folder / "tensorboard")))
        writer, step = writers[0], progress.update
        prefix = "reward/" if progress.part == "reward" else ""
        writer.add_scalar(f"{prefix}train/updates_per_s", progress.updates_per_s, step)
        for tag, values in (
            ("train/nll", progress.train_nll),
            ("train/rmse", progress.train_rmse),
            ("validation/nll", progress.validation_nll),
            ("validation/rmse", progress.validation_rmse),
        ):
            for member, value in enumerate(values):
                writer.add_scalar(f"{prefix}{tag}/member_{member}", value, step)

    try:
        yield log
    finally:
        for writer in writers:
            writer.close()
