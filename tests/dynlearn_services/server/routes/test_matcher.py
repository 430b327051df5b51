import pytest

from dynlearn.errors import InvalidInput
from dynlearn_services.server.routes.matcher import Matcher, split_path
from dynlearn_services.server.routes.route import Route


def route(method, path, role="read"):
    return Route(method, path, role, lambda *_: None, "None", "text/plain")


def test_a_path_is_found_with_its_parts():
    paths = "/a", "/a/{name}", "/a/{name}/b/{other}"
    matcher = Matcher([route("GET", path) for path in paths])
    assert matcher.find(["", "a"]).parts == {}
    assert matcher.find(["", "a", "x"]).parts == {"name": "x"}
    found = matcher.find(["", "a", "x", "b", "y"])
    assert found.parts == {"name": "x", "other": "y"}
    assert found.routes["GET"].path == paths[2]
    for segments in (["", "a", "x", "b"], ["", ""], ["", "a", ""], ["a"], ["", "a", "x", "c", "y"]):
        assert matcher.find(segments) is None


@pytest.mark.parametrize("segment", ["", ".", "..", "x/y", "/", "x\\y"])
def test_what_is_no_part_of_a_path(segment):
    assert Matcher([route("GET", "/a/{name}")]).find(["", "a", segment]) is None


def test_the_least_role_of_a_path_and_its_methods():
    routes = route("POST", "/a", "admin"), route("GET", "/a", "write")
    match = Matcher(routes).find(["", "a"])
    assert (match.role, match.methods) == ("write", "GET, HEAD, POST")
    match = Matcher([*routes[:1], route("GET", "/a", None)]).find(["", "a"])
    assert match.role is None


@pytest.mark.parametrize(
    "paths", [("/a", "/a"), ("/a/{name}", "/a/b"), ("/a/b", "/a/{name}"), ("/{a}/c", "/{b}/c")]
)
def test_a_path_has_one_meaning(paths):
    with pytest.raises(ValueError, match="expected one"):
        Matcher([route("GET", path) for path in paths])


def test_segments_are_decoded_once_after_they_are_cut_off():
    assert split_path({"path": "/a/b c", "raw_path": b"/a/b%20c"}) == ["", "a", "b c"]
    assert split_path({"path": "/a/b", "raw_path": b"/a%2Fb"}) == ["", "a/b"]
    assert split_path({"path": "/%2f", "raw_path": b"/%252f"}) == ["", "%2f"]
    assert split_path({"path": "/a/\u00fc"}) == ["", "a", "\u00fc"]


@pytest.mark.parametrize("raw", [b"/a%0A", b"/a%00", b"/a%7f", b"/a%C2%85", b"/a%FF", b"/\xff"])
def test_paths_to_refuse(raw):
    with pytest.raises(InvalidInput, match="path: expected") as caught:
        split_path({"path": "/a", "raw_path": raw})
    assert str(caught.value).isprintable()
