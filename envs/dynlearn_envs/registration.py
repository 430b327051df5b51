"""The environments that this package adds to Gymnasium's registry."""

import gymnasium

OBJECT_SLIDE = "dynlearn/ObjectSlide-v1"


def register_environments() -> None:
    """Add the environments to Gymnasium's registry, once however often it is called."""
    if OBJECT_SLIDE in gymnasium.registry:
        return
    gymnasium.register(
        id=OBJECT_SLIDE,
        entry_point="dynlearn_envs.object_slide.environment:ObjectSlideEnv",
        vector_entry_point="dynlearn_envs.object_slide.environment:ObjectSlideVectorEnv",
        max_episode_steps=30,
    )
