import contextlib
import json
import struct
import time
import tracemalloc
from functools import partial

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynlearn.errors import InvalidInput, NumericalFailure, TooLarge
from dynlearn.protocol.messages import (
    HEADER_LENGTH,
    InferResponse,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

dumps = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


def tensor(**changes):
    document = {"name": "observation", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    return {key: value for key, value in (document | changes).items() if value is not None}


def body_of(*inputs, **more):
    return json.dumps({"inputs": inputs, **more}).encode()


def test_request_bytes_as_the_binary_extension_lays_them_out():
    header = json.dumps(
        {
            "id": "42",
            "inputs": [
                tensor(data=None, parameters={"binary_data_size": 16}),
                tensor(
                    name="action",
                    datatype="INT64",
                    shape=[2],
                    data=None,
                    parameters={"binary_data_size": 16},
                ),
            ],
            "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
            "parameters": {"binary_data_output": True, "seed": 3},
        }
    ).encode()
    body = header + struct.pack("<4f2q", 1.5, -2, 0.25, 3, 7, -1)
    request = decode_request(body, str(len(header)))
    np.testing.assert_array_equal(request.inputs["observation"], [[1.5, -2], [0.25, 3]])
    np.testing.assert_array_equal(request.inputs["action"], [7, -1])
    assert request.outputs == {"a": True, "b": False}
    assert (request.id, request.binary, request.parameters) == ("42", True, {"seed": 3})


def test_binary_tensors_are_read_only_views_of_the_body():
    body, length = encode_request({"x": np.ones((3, 2), np.float32)}, ["y"])
    values = decode_request(body, str(length)).inputs["x"]
    assert not values.flags.writeable
    assert np.shares_memory(values, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [1.0, 2, 3, 4e0]])
def test_json_data_flat_or_nested(data):
    request = decode_request(body_of(tensor(data=data)), None)
    np.testing.assert_array_equal(request.inputs["observation"], [[1, 2], [3, 4]])
    assert request.inputs["observation"].dtype == np.float32
    assert request.outputs == {}
    assert not request.binary


def test_response_mixes_json_and_binary():
    outputs = {"a": np.array([[0.1]], np.float32), "b": np.array([2.0], np.float32)}
    body, length = encode_response(InferResponse("slide", "3", outputs, "42"), {"b"}, dumps)
    assert json.loads(body[:length]) == {
        "model_name": "slide",
        "model_version": "3",
        "id": "42",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [0.1]},
            {
                "name": "b",
                "datatype": "FP32",
                "shape": [1],
                "parameters": {"binary_data_size": 4},
            },
        ],
    }
    assert body[length:] == struct.pack("<f", 2)


def test_message_headers():
    values = {"x": np.ones(2, np.float32)}
    message = encode_request(values, [])
    assert message.headers[HEADER_LENGTH] == str(message.header_length)
    assert HEADER_LENGTH not in encode_response(InferResponse("m", "1", values), (), dumps).headers


def test_encoding_orders_bytes_and_rows():
    values = np.array([[1, 2, 3], [4, 5, 6]], ">f4").T
    body, length = encode_request({"x": values}, [])
    assert body[length:] == struct.pack("<6f", 1, 4, 2, 5, 3, 6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_answer_leaves_with_nan(value):
    outputs = {"fine": np.ones(2), "broken": np.array([0, value])}
    for binary in (["broken"], []):
        with pytest.raises(NumericalFailure, match="broken: expected finite"):
            encode_response(InferResponse("m", "1", outputs), binary, dumps)


def test_encoding_refuses_what_the_protocol_has_no_word_for():
    with pytest.raises(InvalidInput, match=r"x: expected an array of float32.* got complex128"):
        encode_request({"x": np.ones(2, complex)}, [])


OVERSIZED = [10**9, 10**9, 10**9]
NESTED = "[" * 50_000 + "]" * 50_000

# (body, what the message names)
BAD_JSON = {
    "no JSON": (b"\xff\x00", "Invalid JSON"),
    "empty": (b"", "Invalid JSON"),
    "not an object": (b"[]", "body"),
    "deep": (NESTED.encode(), "Invalid JSON"),
    "deep data": (body_of(tensor()).replace(b"[1, 2, 3, 4]", NESTED.encode()), "Invalid JSON"),
    "no inputs": (b"{}", "inputs: Field required"),
    "numbers too many": (
        body_of(tensor(shape=[2**18 + 2], data=[0] * (2**18 + 2))),
        r"body: expected at most 262144 numbers; send tensors in binary, got 2621\d\d",
    ),
    "lists too many": (
        body_of(tensor(shape=[2**16 + 1, 1], data=[[0]] * (2**16 + 1))),
        r"body: expected at most 65536 lists; send rows flat or in binary, got 655\d\d",
    ),
    "inputs empty": (body_of(), "inputs"),
    "inputs too many": (body_of(*[tensor()] * 1000), "objects"),
    "name missing": (body_of(tensor(name=None)), r"inputs\.0\.name"),
    "name with a line break": (body_of(tensor(name="a\nb")), r"inputs\.0\.name"),
    "name twice": (body_of(tensor(), tensor()), "observation: expected one"),
    "datatype unknown": (body_of(tensor(datatype="FP16")), r"datatype.*FP16"),
    "datatype a list": (body_of(tensor(datatype=["FP32"])), "datatype"),
    "shape missing": (body_of(tensor(shape=None)), "shape"),
    "shape empty": (body_of(tensor(shape=[])), "shape"),
    "shape zero": (body_of(tensor(shape=[0, 2], data=[])), r"shape\.0"),
    "shape negative": (body_of(tensor(shape=[-1, 4])), r"shape\.0.*-1"),
    "shape text": (body_of(tensor(shape=["2", 2])), r"shape\.0"),
    "shape a fraction": (body_of(tensor(shape=[2.5, 2])), r"shape\.0"),
    "shape true": (body_of(tensor(shape=[True, 4])), r"shape\.0"),
    "shape long": (body_of(tensor(shape=[1] * 9, data=[1])), "shape"),
    "shape huge": (body_of(tensor(shape=OVERSIZED)), "observation: expected 10{27} numbers"),
    "data short": (body_of(tensor(data=[1, 2, 3])), "observation: expected 4 numbers.*got 3"),
    "data empty": (body_of(tensor(data=[])), "observation: expected 4 numbers.*got 0"),
    "data missing": (body_of(tensor(data=None)), "observation: expected either data"),
    "data a number": (body_of(tensor(data=1)), "data"),
    "data ragged": (body_of(tensor(data=[[1, 2, 3], [4]])), "observation: expected data flat"),
    "data transposed": (
        body_of(tensor(shape=[4, 1], data=[[1, 2, 3, 4]])),
        "observation: expected data flat",
    ),
    "data too deep": (body_of(tensor(data=[[[1], [2]], [[3], [4]]])), "observation"),
    "data text": (body_of(tensor(data=["1", 2, 3, 4])), "observation: expected numbers"),
    "data null": (body_of(tensor(data=[None, 2, 3, 4])), "observation: expected numbers"),
    "data long text": (
        body_of(tensor(shape=[100_001], data=["x" * 100_000, *range(100_000)])),
        "observation: expected numbers",
    ),
    "data true": (
        body_of(tensor(data=[True, 2, 3, 4])),
        "observation: expected numbers.* got true",
    ),
    "data nested false": (
        body_of(tensor(data=[[2, 3], [4, False]])),
        "observation: expected numbers.* got true or false",
    ),
    "true as INT64": (
        body_of(tensor(datatype="INT64", data=[True, 2, 3, 4])),
        "observation: expected numbers of datatype INT64, got true",
    ),
    "data NaN": (body_of(tensor(data=[float("nan"), 2, 3, 4])), "observation: expected finite"),
    "data infinite": (body_of(tensor(data=[1, 2, 3, -np.inf])), "observation: expected finite"),
    "data beyond FP32": (body_of(tensor(data=[1e300, 2, 3, 4])), "observation: expected finite"),
    "data beyond FP64": (body_of(tensor(data=[10**400, 2, 3, 4])), "observation"),
    "fraction as INT64": (
        body_of(tensor(datatype="INT64", data=[1.5, 2, 3, 4])),
        "observation: expected numbers of datatype INT64",
    ),
    "beyond INT32": (
        body_of(tensor(datatype="INT32", data=[2**31, 2, 3, 4])),
        "observation: expected numbers of datatype INT32",
    ),
    "binary without a header": (
        body_of(tensor(data=None, parameters={"binary_data_size": 16})),
        "observation: expected 16 binary bytes, got 0",
    ),
    "both kinds of data": (
        body_of(tensor(parameters={"binary_data_size": 16})),
        "observation: expected either data",
    ),
    "parameters a list": (body_of(tensor(parameters=[])), "parameters"),
    "output without a name": (body_of(tensor(), outputs=[{}]), r"outputs\.0\.name"),
    "classes": (
        body_of(tensor(), outputs=[{"name": "a", "parameters": {"classification": 3}}]),
        r"outputs\.0\.parameters\.classification: expected it left out, .*, got 3",
    ),
    "classes that are a long text": (
        body_of(tensor(), outputs=[{"name": "a", "parameters": {"classification": "x" * 10**5}}]),
        r"outputs\.0\.parameters\.classification: expected it left out, .{1,200}$",
    ),
    "classes, as Triton's extension counts them": (
        body_of(tensor(), outputs=[{"name": "a", "parameters": {"class_count": 3}}]),
        r"outputs\.0\.parameters\.class_count",
    ),
    "shared memory": (
        body_of(tensor(), outputs=[{"name": "a", "parameters": {"shared_memory_region": "x"}}]),
        r"outputs\.0\.parameters\.shared_memory_region",
    ),
    "output twice": (body_of(tensor(), outputs=[{"name": "a"}] * 2), "outputs: expected distinct"),
    "outputs too many": (body_of(tensor(), outputs=[{"name": "a"}] * 1000), "objects"),
    "binary_data a word": (
        body_of(tensor(), outputs=[{"name": "a", "parameters": {"binary_data": "no"}}]),
        "binary_data",
    ),
    "binary_data_output a number": (
        body_of(tensor(), parameters={"binary_data_output": 1}),
        "binary_data_output",
    ),
    "id a number": (body_of(tensor(), id=5), "id"),
}


@pytest.mark.parametrize(("body", "names"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused(body, names):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=names) as caught:
            decode_request(body, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert peak < 32 * 2**20


def binary_body(size=16, blob=bytes(16), **changes):
    header = body_of(tensor(data=None, parameters={"binary_data_size": size}, **changes))
    return header + blob, len(header)


@pytest.mark.parametrize(
    "length", ["0", "-1", "", "x", "1.5", " 7", "+7", "1_0", "0x10", "٧", "1e2", "9" * 5000]
)
def test_bad_header_length_is_refused(length):
    body, _ = binary_body()
    with pytest.raises(InvalidInput, match=HEADER_LENGTH):
        decode_request(body, length)


def test_header_length_beyond_the_body_is_refused():
    body, _ = binary_body()
    with pytest.raises(InvalidInput, match=f"{HEADER_LENGTH}.*{len(body)}"):
        decode_request(body, str(len(body) + 1))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"blob": bytes(15)}, "observation: expected 16 binary bytes, got 15"),
        ({"blob": bytes(17)}, "body: expected nothing after .* got 1 bytes"),
        ({"blob": b""}, "observation: expected 16 binary bytes, got 0"),
        ({"size": 12}, "observation: expected binary_data_size 16 .* got 12"),
        ({"size": -16}, "binary_data_size"),
        ({"size": 16.0}, "binary_data_size"),
        ({"size": 4 * 10**27, "shape": OVERSIZED}, "observation: expected 4.* got 16"),
        ({"datatype": "FP64"}, "observation: expected binary_data_size 32"),
        ({"blob": struct.pack("<4f", 0, 0, np.nan, 0)}, "observation: expected finite"),
        ({"blob": struct.pack("<4f", 0, 0, np.inf, 0)}, "observation: expected finite"),
    ],
)
def test_bad_binary_is_refused(changes, names):
    body, length = binary_body(**changes)
    with pytest.raises(InvalidInput, match=names):
        decode_request(body, str(length))


arrays = st.one_of(
    *(
        hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
            elements={"allow_nan": False, "allow_infinity": False} if kind == "f" else None,
        )
        for dtype, kind in ((np.float32, "f"), (np.float64, "f"), (np.int32, "i"), (np.int64, "i"))
    )
)
names = st.text("abcxyz_", min_size=1, max_size=8)
tensors = st.dictionaries(names, arrays, min_size=1, max_size=4)


def assert_same_bits(decoded, given_):
    assert list(decoded) == list(given_)
    for name, values in given_.items():
        assert decoded[name].dtype == values.dtype
        assert decoded[name].shape == values.shape
        assert decoded[name].tobytes() == values.tobytes()


@given(tensors)
def test_requests_keep_every_bit(inputs):
    body, length = encode_request(inputs, ["a"])
    assert_same_bits(decode_request(body, str(length)).inputs, inputs)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(-1e9, 1e9),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(names, children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, plain, max_size=5), st.none() | st.text(max_size=1024))
def test_requests_keep_their_parameters_and_id(parameters, id):
    body, length = encode_request({"x": np.ones(2)}, ["a", "b"], parameters, id)
    request = decode_request(body, str(length))
    assert request.parameters == parameters
    assert request.id == id
    assert request.outputs == {"a": True, "b": True}
    assert_same_bits(request.inputs, {"x": np.ones(2)})


def test_parameters_do_not_turn_binary_off():
    message = encode_request({"x": np.ones(2)}, ["a"], {"binary_data_output": False, "seed": 3})
    request = decode_request(message.body, str(message.header_length))
    assert request.outputs == {"a": True}
    assert request.parameters == {"seed": 3}


@pytest.mark.parametrize("id", ["", "plan-7", None])
def test_answers_keep_their_id(id):
    response = InferResponse("m", "1", {"a": np.ones(1)}, id)
    body, length = encode_response(response, {"a"}, dumps)
    assert decode_response(body, str(length)).id == id


@given(tensors, st.sets(names), st.sampled_from([dumps, "standard"]))
def test_responses_keep_every_bit(outputs, binary, write):
    if write == "standard":

        def write(document):
            return json.dumps(document, default=np.ndarray.tolist).encode()

    message = encode_response(InferResponse("m", "1", outputs), binary, write)
    length = None if message.header_length is None else str(message.header_length)
    assert_same_bits(decode_response(message.body, length).outputs, outputs)


@given(st.data())
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_bodies_are_refused_or_read_but_never_crash(data):
    inputs = {"observation": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(2)}
    message = encode_request(inputs, ["x", "y"])
    body = bytearray(message.body)
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(body)))
        end = start + data.draw(st.integers(0, 8))
        body[start:end] = data.draw(st.binary(max_size=8) | st.sampled_from(FRAGMENTS))
    length = data.draw(
        st.just(str(message.header_length))
        | st.integers(-2, len(body) + 2).map(str)
        | st.text(max_size=4)
        | st.none()
    )
    with contextlib.suppress(InvalidInput):
        request = decode_request(bytes(body), length)
        assert all(np.isfinite(values).all() for values in request.inputs.values())


FRAGMENTS = [b"[", b"]", b"{", b"null", b"-1", b"1e999", b'"', b"99999999999", b"true", b"NaN"]


def request_of(data: str, shape: str = "[1]") -> bytes:
    tensor = f'{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {data}}}'
    return f'{{"inputs": [{tensor}]}}'.encode()


@pytest.mark.parametrize("part", ["[],", '{"":0},', '"",', "[[]],"])
def test_what_is_not_numbers_is_refused_before_it_is_read(part: str) -> None:
    """Each would become an object of up to a hundred times its size."""
    body = request_of("[" + part * 200_000 + "0]")
    began = time.perf_counter()
    with pytest.raises(TooLarge, match=r"body: expected at most .*, got "):
        decode_request(body, None)
    assert time.perf_counter() - began < 0.1


def test_rows_may_be_nested_and_many() -> None:
    body = request_of("[" + ",".join(["[1,2]"] * 50_000) + "]", "[50000, 2]")
    assert decode_request(body, None).inputs["x"].sum() == 150_000


def test_json_has_a_limit_of_its_own_and_tensors_beside_it_none() -> None:
    body = request_of("[0]")
    decode_request(body, None, len(body))
    with pytest.raises(TooLarge, match=rf"at most {len(body) - 1} bytes of JSON, got"):
        decode_request(body, None, len(body) - 1)
    message = encode_request({"x": np.zeros(1000, np.float32)}, [])
    assert message.header_length is not None
    decode_request(message.body, str(message.header_length), message.header_length)


@pytest.mark.parametrize("length", [2**41, 10**4000, "9" * 5000], ids=["2^41", "long", "longer"])
def test_absurd_shapes_are_refused(length: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_request(request_of("[0]", f"[{length}, {length}]"), None)
    assert len(str(caught.value)) < 1000
