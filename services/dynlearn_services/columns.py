"""What an environment's observation columns are called, and which of them matter."""

from dynlearn.task import bare_task, installed_tasks


def describe_columns(environment: str, size: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return a label for each of ``size`` observation columns, and the task's target columns."""
    task = installed_tasks().get(environment)
    if task is None or len(task.observation_columns) != size:
        return bare_task(environment, size).observation_columns, ()
    return task.column_labels, task.target_columns
