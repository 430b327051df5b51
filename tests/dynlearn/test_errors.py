from dynlearn.errors import (
    CorruptData,
    DeadlineExceeded,
    DynlearnError,
    Forbidden,
    InvalidInput,
    NotFound,
    NumericalFailure,
    TooLarge,
    Unauthorized,
    Unavailable,
    nearest,
)


def test_exit_codes_and_http_statuses() -> None:
    codes = {
        DynlearnError: (1, 500),
        InvalidInput: (2, 400),
        NotFound: (2, 404),
        CorruptData: (2, 400),
        TooLarge: (2, 413),
        Unauthorized: (2, 401),
        Forbidden: (2, 403),
        Unavailable: (1, 503),
        DeadlineExceeded: (1, 504),
        NumericalFailure: (1, 500),
    }
    assert {kind: (kind.exit_code, kind.http_status) for kind in codes} == codes


def test_a_passed_deadline_is_a_way_of_being_unavailable() -> None:
    assert issubclass(DeadlineExceeded, Unavailable)


def test_nearest_names_what_is_close_else_what_is_known() -> None:
    assert nearest("slyde", ["slide", "fetch"]) == "did you mean slide?"
    assert nearest("zzz", ["slide", "fetch"]) == "known: fetch, slide"
    assert nearest("zzz", []) == "there are none yet"
