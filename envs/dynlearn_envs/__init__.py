"""Gymnasium environments, behaviour policies, and what a planner must know of each environment.

Importing this package registers its environments. Gymnasium 1.0 dropped the entry points through
which installed packages used to register by themselves, so plain Gymnasium needs this import, or
the id with the package's name: ``gymnasium.make("dynlearn_envs:dynlearn/ObjectSlide-v1")``.
"""

from dynlearn_envs.registration import register_environments

register_environments()
