"""What the tensors of predictions, draws and rollouts are called on the wire."""

OUTPUTS = {
    "mean": "next_observation_mean",
    "variance": "next_observation_variance",
    "covariance": "next_observation_covariance",
    "aleatoric": "aleatoric_covariance",
    "epistemic": "epistemic_covariance",
    "member_means": "member_means",
    "member_variances": "member_variances",
    "member_scale_trils": "member_scale_trils",
}
"""The tensors of a prediction: what each attribute of a prediction is called on the wire."""

ROLLOUT_OUTPUTS = {
    "returns": "returns",
    "return_std": "return_std",
    "mean": "trajectory_mean",
    "variance": "trajectory_variance",
    "covariance": "trajectory_covariance",
    "particles": "particles",
}
"""The tensors of a rollout, as `OUTPUTS`; the first two need a reward."""

REWARD_MEAN = "reward_mean"
"""The learned reward at each member's mean, averaged; of models that have learned one."""

SAMPLE, SAMPLE_MEMBER = "next_observation_sample", "sample_member"
"""The outputs of a draw: next observations, and which member each comes from."""
