"""mbrl-lib's ``ModelTrainer`` on a ``GaussianMLP`` ensemble, fed by its own bootstrap iterator."""

import numpy as np
from mbrl.models import GaussianMLP, ModelTrainer, OneDTransitionRewardModel
from mbrl.types import TransitionBatch
from mbrl.util.replay_buffer import BootstrapIterator, TransitionIterator

from benchmarks.race import Turn
from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions


def train(config: TrainConfig, train: Transitions, validation: Transitions, turn: Turn) -> None:
    """Train without end; a lap is an epoch with a validation at its end.

    Of the configuration it takes the sizes, the step size and the device; the loss is mbrl-lib's.
    """
    batch = _batch(train)
    network = GaussianMLP(
        train.observation.shape[1] + train.action.shape[1],
        train.observation.shape[1],
        config.device,
        num_layers=len(config.hidden),
        ensemble_size=config.members,
        hid_size=config.hidden[0],
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = OneDTransitionRewardModel(network, normalize=True, learned_rewards=False)
    model.update_normalizer(batch)
    batches = BootstrapIterator(
        batch,
        config.batch_size,
        config.members,
        shuffle_each_epoch=True,
        permute_indices=False,
        rng=np.random.default_rng(config.seed),
    )
    # Its own default decays the weights, which costs it time that the others do not spend.
    trainer = ModelTrainer(model, optim_lr=config.learning_rate, weight_decay=0.0)
    turn({})
    trainer.train(
        batches,
        TransitionIterator(_batch(validation), config.batch_size),
        callback=lambda model, iteration, epoch, loss, score, best: turn(
            {"validation_rmse": float(score.sqrt().mean())}
        ),
        silent=True,
    )


def _batch(transitions: Transitions) -> TransitionBatch:
    never = np.zeros(len(transitions), bool)
    return TransitionBatch(
        transitions.observation,
        transitions.action,
        transitions.next_observation,
        np.zeros(len(transitions), np.float32),
        never,
        never,
    )
