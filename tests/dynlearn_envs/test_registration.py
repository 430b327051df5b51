import subprocess
import sys

import gymnasium

from dynlearn_envs.object_slide.environment import ObjectSlideVectorEnv
from dynlearn_envs.registration import register_environments


def run(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_gymnasium_makes_the_environment_from_the_package_s_name_alone() -> None:
    code = """
import sys, gymnasium
environment = gymnasium.make("dynlearn_envs:dynlearn/ObjectSlide-v1")
observation, _ = environment.reset(seed=0)
print(environment.spec.id, environment.spec.max_episode_steps, "torch" in sys.modules)
"""
    assert run(code) == "dynlearn/ObjectSlide-v1 30 False"


def test_importing_the_package_registers_and_stays_light() -> None:
    code = """
import sys, dynlearn_envs, gymnasium
print("dynlearn/ObjectSlide-v1" in gymnasium.registry, {"torch", "mujoco"} & set(sys.modules))
"""
    assert run(code) == "True set()"


def test_registering_twice_is_quiet() -> None:
    register_environments()
    register_environments()


def test_make_vec_takes_the_vector_form_by_default() -> None:
    environment = gymnasium.make_vec("dynlearn/ObjectSlide-v1", num_envs=3)
    assert isinstance(environment, ObjectSlideVectorEnv)
    assert environment.num_envs == 3
    environment.reset(seed=0)
    for _ in range(30):
        *_, truncated, _ = environment.step(environment.action_space.sample())
    assert truncated.all()
