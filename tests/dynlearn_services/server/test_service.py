import gc

from dynlearn_services.server.service import settle


def test_what_is_there_at_first_is_not_looked_at_for_garbage_again() -> None:
    before = gc.get_freeze_count()
    lasting = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    try:
        settle()
        assert gc.get_freeze_count() >= before + len(lasting)
        assert not any(one is lasting for one in gc.get_objects())
    finally:
        gc.unfreeze()
