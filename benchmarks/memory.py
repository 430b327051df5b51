"""What training takes of memory: the growth at its peak, beside the raw float32 transitions.

Of a dataset of ObjectSlide's kind, only wider, on disk in float32: a child process opens it and
trains for a few updates with a validation, which is all that memory depends on.

    python -m benchmarks.memory [--transitions 1000000] [--learn-reward]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import print_figures
from dynlearn.config import TrainConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.spaces import BoxSpace, ObservationSpace

OBSERVATION, ACTION, STEPS = 28, 4, 100
EPISODES_IN_SHARD = 500
TRANSITIONS = 1_000_000
BYTES = 4 * (OBSERVATION + ACTION)
CONFIG = TrainConfig(
    dataset="synthetic",
    model="memory",
    hidden=(200, 200, 200, 200),
    max_updates=40,
    validate_every=20,
    device="cpu",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=TRANSITIONS)
    parser.add_argument("--learn-reward", action="store_true")
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.dataset:
        print(peak_growth(arguments.dataset, arguments.learn_reward))
        return
    ratio = memory_ratio(arguments.transitions, arguments.learn_reward)
    print_figures("memory", {"memory_ratio": ratio})


def memory_ratio(transitions: int = TRANSITIONS, learn_reward: bool = False) -> float:
    """Return the peak growth of a process that trains, over the bytes of its transitions."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "data", transitions)
        command = [sys.executable, "-m", "benchmarks.memory", "--dataset", f"{folder}/data"]
        done = subprocess.run(
            command + ["--learn-reward"] * learn_reward, stdout=subprocess.PIPE, check=True
        )
    grown = int(done.stdout)
    what = "dynamics and reward" if learn_reward else "dynamics"
    print(
        f"\nTraining {what} on {transitions} transitions of {OBSERVATION} + {ACTION} columns, "
        f"{transitions * BYTES / 2**20:.0f} MiB in float32, takes {grown / 2**20:.0f} MiB more "
        "at its peak, pages of the dataset's files included."
    )
    return grown / (transitions * BYTES)


def write_dataset(folder: Path, transitions: int) -> None:
    """Write episodes of noise around a linear system."""
    episodes = -(-transitions // STEPS)
    header = DatasetHeader(
        environment="elsewhere/Synthetic-v0",
        versions={},
        observation_space=ObservationSpace(
            observation=BoxSpace(low=(-np.inf,) * OBSERVATION, high=(np.inf,) * OBSERVATION)
        ),
        action_space=BoxSpace(low=(-1,) * ACTION, high=(1,) * ACTION),
        policy="random",
        config={},
        planned=episodes,
        episodes_per_shard=EPISODES_IN_SHARD,
    )
    mixing = np.random.default_rng(0).standard_normal((ACTION, OBSERVATION), np.float32)
    with EpisodeWriter.create(folder, header) as writer:
        for shard in writer.missing_shards():
            indices = np.array(header.shard_indices(shard))
            rng = np.random.default_rng(shard)
            count = len(indices)
            action = rng.uniform(-1, 1, (count, STEPS, ACTION)).astype(np.float32)
            noise = rng.standard_normal((count, STEPS + 1, OBSERVATION), np.float32)
            noise[:, 1:] += np.cumsum(action @ mixing, 1)
            flags = np.zeros(count * STEPS, dtype=bool)
            writer.append(
                EpisodeTable(
                    indices,
                    indices,
                    np.full(count, STEPS),
                    noise.reshape(-1, OBSERVATION),
                    action.reshape(-1, ACTION),
                    noise[:, 1:, 0].astype(np.float64).reshape(-1),
                    flags,
                    flags,
                )
            )
        writer.finish()


def peak_growth(dataset: str, learn_reward: bool) -> int:
    """Train in this process, and return how many bytes it grew by at most."""
    from dynlearn.training.dataset import train

    # A first training loads what is loaded once.
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "small", 20 * STEPS)
        train(CONFIG, EpisodeStore.open(Path(folder) / "small"))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    train(CONFIG.model_copy(update={"learn_reward": learn_reward}), EpisodeStore.open(dataset))
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Return a size of this process's memory in bytes, as Linux says it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
