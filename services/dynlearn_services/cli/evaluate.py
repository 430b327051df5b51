"""``dynlearn evaluate``."""

from dynlearn.config import EvaluateConfig
from dynlearn_services.cli.flags import with_config
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.cli.standard_output import clean_standard_output
from dynlearn_services.home import Home


@with_config(EvaluateConfig)
def evaluate(config: EvaluateConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure a model on held-out episodes; write figures and a model card."""
    from dynlearn_services.evaluation.run import run_evaluation

    with clean_standard_output():
        metrics, folder = run_evaluation(config, Home(home))
    lines = [f"NLL {metrics.nll:.3f}, RMSE {metrics.rmse:.4g} on {metrics.episodes} episodes"]
    lines += [f"  {name}: RMSE {value:.4g}" for name, value in metrics.rmse_per_column.items()]
    lines += [f"  inside the {name} interval: {s:.1%}" for name, s in metrics.coverage.items()]
    lines += [
        f"  inside the {name} ellipsoid: {s:.1%}" for name, s in metrics.joint_coverage.items()
    ]
    for step in (1, 5, 15, 50):
        if step <= len(metrics.open_loop_rmse):
            lines.append(
                f"  open loop, {step} steps: RMSE {metrics.open_loop_rmse[step - 1]:.4g}, of no "
                f"change {metrics.open_loop_rmse_of_no_change[step - 1]:.4g}"
            )
    if metrics.reward_rmse is not None:
        lines.append(
            f"  learned reward: RMSE {metrics.reward_rmse:.4g}, of the mean reward "
            f"{metrics.rmse_of_mean_reward:.4g}"
        )
    content = {**metrics.model_dump(), "folder": str(folder)}
    print_result(as_json, content, "\n".join([*lines, f"figures and model card: {folder}"]))
