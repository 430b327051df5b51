from dynlearn.errors import (
    CorruptData,
    InvalidInput,
    NotFound,
    NumericalFailure,
    Unavailable,
    nearest,
)


def test_exit_codes_and_http_statuses() -> None:
    codes = {
        kind: (kind.exit_code, kind.http_status)
        for kind in (InvalidInput, NotFound, CorruptData, Unavailable, NumericalFailure)
    }
    assert codes == {
        InvalidInput: (2, 400),
        NotFound: (2, 404),
        CorruptData: (2, 400),
        Unavailable: (1, 503),
        NumericalFailure: (1, 500),
    }


def test_nearest_names_what_is_close_else_what_is_known() -> None:
    assert nearest("slyde", ["slide", "fetch"]) == "did you mean slide?"
    assert nearest("zzz", ["slide", "fetch"]) == "known: fetch, slide"
    assert nearest("zzz", []) == "there are none yet"
