"""What runs: the collector, the trainer, the model server, the planner and the command line."""

import gc
import os
import sys


def main() -> None:
    """Run the command line; the entry point of ``dynlearn``."""
    # Read when torch is imported. Its threads else spin at every barrier, and where another
    # process has one of the cores, training falls to a tenth of its speed.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from dynlearn_services.cli.app import run
        from dynlearn_services.cli.standard_output import close_standard_output
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: expected the package {error.name}, got none; "
            "install it with `pip install 'dynlearn[all]'`"
        )
    code = run(sys.argv[1:])
    # Else Python looks for garbage among all that torch is made of while it ends, for a second.
    gc.freeze()
    close_standard_output()
    sys.exit(code)
