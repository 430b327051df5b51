"""The thread that runs models, and its queue."""
