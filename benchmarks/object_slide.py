"""β-NLL on ObjectSlide: the set-up of Table 2 of Seitzer et al. 2022, at a small budget.

Three datasets of 2000 random episodes (60,000 transitions) with seeds of their own for training,
validation and test; the target is the object's displacement; 3 × 128 ReLU, batch 256, Adam 1e-3.
Best weights are chosen on validation data, once by RMSE and once by NLL, as the paper's are.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dynlearn.config import CollectConfig, TrainConfig
from dynlearn.config.objectives import BetaNLLSettings
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import Transitions, cut_transitions
from dynlearn.training.fit import fit, model_spec
from dynlearn_services.collection.run import collect
from dynlearn_services.ray_cluster import ray_cluster

# RMSE and LL of Table 2, at 1.17 million updates.
PAPER = {
    "0": (0.0192, 7.97),
    "0.25": (0.0107, 9.03),
    "0.5": (0.0064, 9.28),
    "0.75": (0.0087, 6.61),
    "1": (0.0074, 6.58),
}
BUDGETS = {
    "small": (40_000, ("0", "0.5"), 1),
    "full": (200_000, ("0", "0.25", "0.5", "0.75", "1"), 5),
}
OBJECT_POSITION = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    updates, betas, seeds = BUDGETS[parser.parse_args().budget]
    with tempfile.TemporaryDirectory() as folder, ray_cluster(2):
        stores = [collect_random(Path(folder), seed) for seed in range(3)]
        parts = [cut_transitions(store.table(), store.header.action_space) for store in stores]
        header = stores[0].header
    moved = parts[2].next_observation - parts[2].observation
    constant = float(moved[:, OBJECT_POSITION].std())
    print(f"{updates} updates, {seeds} seed(s); a constant predictor has RMSE {constant:.4f}\n")
    print("| β | RMSE | LL | paper's RMSE | paper's LL | updates/s |\n|---|---|---|---|---|---|")
    figures: dict[str, float] = {"constant_rmse": constant}
    for beta in betas:
        runs = [measure(beta, seed, updates, parts, header) for seed in range(seeds)]
        rmse, log_likelihood, rate = np.mean(runs, axis=0)
        paper_rmse, paper_ll = PAPER[beta]
        ours = f"{rmse:.4f} | {log_likelihood:.2f}"
        print(f"| {beta} | {ours} | {paper_rmse} | {paper_ll} | {rate:.0f} |", flush=True)
        figures |= {f"rmse_beta_{beta}": rmse, f"log_likelihood_beta_{beta}": log_likelihood}
    print(json.dumps({"benchmark": "object_slide", "figures": figures}))


def collect_random(folder: Path, seed: int) -> EpisodeStore:
    uri = str(folder / str(seed))
    collect(CollectConfig(dataset="slide", policy="random", episodes=2000, seed=seed), uri)
    return EpisodeStore.open(uri)


def measure(
    beta: str, seed: int, updates: int, parts: list[Transitions], header: DatasetHeader
) -> tuple[float, float, float]:
    """Return test RMSE at best validation RMSE, test LL at best validation NLL, updates/s."""
    train, validation, test = parts
    target = torch.from_numpy(test.next_observation[:, [OBJECT_POSITION]])
    rmse = log_likelihood = float("nan")
    began = time.perf_counter()
    for select_by in ("rmse", "nll"):
        config = TrainConfig(
            dataset="slide",
            model="slide",
            objective=BetaNLLSettings(beta=float(beta)),
            members=1,
            activation="relu",
            target_columns=(OBJECT_POSITION,),
            schedule="constant",
            max_updates=updates,
            patience=updates,
            select_by=select_by,
            seed=seed,
        )
        spec = model_spec(config, header.observation_space, header.action_space)
        trained = fit(config, spec, train, validation)
        assert trained is not None
        prediction = trained.model.predict(test.observation, test.action)
        if select_by == "rmse":
            rmse = float((prediction.mean - target).square().mean().sqrt())
        else:
            log_likelihood = float(prediction.log_prob(target).mean())
    return rmse, log_likelihood, 2 * updates / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
