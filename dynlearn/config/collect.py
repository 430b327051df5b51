"""The configuration of a collection."""

from pydantic import Field

from dynlearn.config.base import Config, EnvKwargs, Seed, SeedRange
from dynlearn.config.choices import OnError


class CollectConfig(Config):
    """Collect episodes of a Gymnasium environment into a dataset, with Ray workers."""

    dataset: str = Field(description="name of the dataset to write")
    env: str = Field("dynlearn/ObjectSlide-v1", description="Gymnasium environment id")
    env_kwargs: EnvKwargs = Field({}, description="what the environment is made with, as JSON")
    episodes: int = Field(500, ge=1, le=10_000_000, description="number of episodes")
    policy: str = Field("scripted", description="behaviour policy: random or scripted")
    noise: float = Field(
        0.3, ge=0, description="standard deviation of the action noise, in half action ranges"
    )
    random_share: float = Field(
        0.3, ge=0, le=1, description="share of episodes with uniformly random actions"
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="longest episode; the environment's own limit if absent",
    )
    seed: Seed = Field(0, description="dataset seed; with it the content is determined")
    seed_range: SeedRange | None = Field(
        None,
        description="lowest and highest seed that the environment takes, LOW:HIGH; any if absent",
    )
    on_error: OnError = Field(
        "stop",
        description="what becomes of an episode that fails: the collection stops there, or keeps "
        "it up to its last good step, or plays another seed in its place",
    )
    step_timeout: float | None = Field(
        None,
        gt=0,
        description="seconds after which a step of the environment has failed; it may take for "
        "ever if absent",
    )
    episodes_per_shard: int = Field(500, ge=1, le=100_000, description="episodes in one file")
    workers: int = Field(2, ge=1, le=1024, description="number of Ray workers")
    resume: bool = Field(False, description="go on with a dataset that was cut off")

    def content(self) -> dict[str, object]:
        """Return the options that determine the dataset's content."""
        content = self.model_dump(exclude={"workers", "resume", "step_timeout"}, mode="json")
        # Datasets without these are described as they were before there were any.
        for name, plain in (("env_kwargs", {}), ("seed_range", None), ("on_error", "stop")):
            if content[name] == plain:
                del content[name]
        return content
