"""``python -m dynlearn_services`` is ``dynlearn``."""

from dynlearn_services import main

main()
