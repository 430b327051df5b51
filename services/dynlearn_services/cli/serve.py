"""``dynlearn serve``."""

import os

from dynlearn.config import ServeConfig
from dynlearn_services.cli.flags import with_config
from dynlearn_services.cli.options import HomeOption
from dynlearn_services.home import Home


@with_config(ServeConfig)
def serve(config: ServeConfig, home: HomeOption = None) -> None:
    """Serve models over HTTP in the Open Inference Protocol v2."""
    # Read when torch is imported: its idle threads are not to take the event loop's processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dynlearn_services.server.process import serve
    from dynlearn_services.tokens import Tokens

    def announce(url: str) -> None:
        print(f"serving {', '.join(config.model) or 'all models'} at {url}", flush=True)

    place = Home(home)
    serve(config, place.models, Tokens(place.tokens), announce)
