"""A loaded model as the protocol describes it."""

from collections.abc import Sequence
from typing import Literal

from dynlearn.protocol.metadata import Limits, ModelMetadata, ModelParameters, TensorMetadata
from dynlearn.spaces import DiscreteSpace
from dynlearn.task import Task
from dynlearn_services.server.models.loaded_model import LoadedModel


def describe(
    loaded: LoadedModel,
    versions: Sequence[str],
    task: Task | None,
    limits: Limits,
) -> ModelMetadata:
    """Return what a model takes and gives, and what a planner must know of it.

    Args:
        loaded: the model.
        versions: that can be asked for.
        task: of its environment, whose rewards rollouts can be judged by.
        limits: of one request.
    """
    spec = loaded.model.spec
    context_size = loaded.context_size
    if not context_size and task is not None:
        context_size = task.context_size(spec.observation_space) or 0
    action = (
        TensorMetadata(name="action", datatype="INT64", shape=[-1])
        if isinstance(spec.action_space, DiscreteSpace)
        else TensorMetadata(name="action", datatype="FP32", shape=[-1, spec.action_size])
    )
    datatype: Literal["FP32", "FP64"] = "FP32" if spec.origin is None else "FP64"
    return ModelMetadata(
        name=loaded.name,
        versions=list(versions),
        platform="dynlearn",
        inputs=[
            TensorMetadata(
                name="observation", datatype=datatype, shape=[-1, spec.observation_size]
            ),
            action,
        ],
        outputs=[
            TensorMetadata(name=name, datatype=loaded.outputs.datatype(name), shape=shape)
            for name, shape in loaded.outputs.shapes.items()
        ],
        parameters=ModelParameters(
            version=loaded.version,
            observation_size=spec.observation_size,
            observation_datatype=datatype,
            action_space=spec.action_space,
            observation_columns=spec.observation_columns,
            target_columns=spec.target_columns,
            members=spec.members,
            covariance="full" if spec.head == "scale_tril" else "diagonal",
            full_state=spec.full_state,
            learned_reward=loaded.reward is not None,
            context_size=context_size,
            precision=loaded.model.precision,
            rewards={} if task is None else {task.environment: tuple(task.rewards)},
            environment=loaded.environment,
            env_kwargs=loaded.env_kwargs,
            seed_range=loaded.seed_range,
            limits=limits,
        ),
    )
