"""Every named choice, once: what options, models and messages may be called."""

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
PredictionPrecision = Literal["float32", "bfloat16"]
Propagation = Literal["ts1", "tsinf", "expectation", "moment_matching"]
Covariance = Literal["diagonal", "full"]
ObjectiveName = Literal[
    "beta_nll",
    "nll",
    "mse",
    "moment_matching",
    "student_t",
    "xvamp",
    "xvamp_star",
    "vbem",
    "vbem_star",
    "trust_region_nll",
    "trustable",
]
TrustRegionMetric = Literal["kl", "w2", "w2_unscaled", "frobenius"]
ActionsOutside = Literal["clip", "refuse"]
Activation = Literal["relu", "tanh", "silu"]
Initialization = Literal["xavier_uniform", "lecun_uniform"]
OnError = Literal["stop", "cut", "skip"]
