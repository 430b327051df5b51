"""Both clients against a server whose certificate a private authority has signed."""

import asyncio
import datetime
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dynlearn.client import AsyncDynamicsClient, DynamicsClient
from dynlearn.errors import InvalidInput, Unavailable

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
DESCRIPTION = {
    "name": "arm",
    "versions": ["1"],
    "platform": "dynlearn",
    "inputs": [],
    "outputs": [],
    "parameters": {
        "version": "1",
        "observation_size": 2,
        "action_space": {"kind": "box", "low": [-1], "high": [1]},
        "observation_columns": [0, 1],
        "target_columns": [0, 1],
        "members": 3,
        "covariance": "diagonal",
        "full_state": True,
    },
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        body = json.dumps(DESCRIPTION).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    asked, connected = 0, 0

    def get_request(self):
        self.connected += 1
        return super().get_request()

    def handle_error(self, request, client_address):
        """Callers that break off are part of these tests."""


def signed(name, issuer=None):
    """Return a certificate of localhost and its key, signed by an issuer, else an authority's."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, by_key = (issuer[0].subject, issuer[1]) if issuer else (own, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if issuer is None:
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), True
        )
    else:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, False)
    return builder.sign(by_key, hashes.SHA256()), key


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of an authority's certificate, one of a stranger, and a key with what it has signed."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = signed("authority"), signed("stranger")
    leaf, key = signed("server", authority)
    (folder / "authority.pem").write_bytes(pem(authority[0]))
    (folder / "stranger.pem").write_bytes(pem(stranger[0]))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "server.pem").write_bytes(private + pem(leaf))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = Server(("127.0.0.1", 0), Handler)
    # Not shaken when accepted: one caller that breaks off is not to stop the others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["blocking", "asynchronous"])
def spec(request, server, monkeypatch):
    """Return a function that asks the server what it serves."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)

    def ask(host="localhost", **options):
        url = f"https://{host}:{server.server_port}"
        if request.param == "blocking":
            with DynamicsClient(url, "arm", **options) as client:
                return client.spec

        async def once():
            async with AsyncDynamicsClient(url, "arm", **options) as client:
                return await client.spec()

        return asyncio.run(once())

    return ask


def test_an_authority_that_is_named_is_trusted(spec, folder):
    file = folder / "authority.pem"
    context = ssl.create_default_context(cafile=file)
    for verify in (file, str(file), context, False):
        assert spec(verify=verify).name == "arm"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_usual_variables(spec, folder, monkeypatch, variable):
    monkeypatch.setenv(variable, str(folder / "authority.pem"))
    assert spec().name == "arm"
    # What is said beats what the environment says.
    with pytest.raises(Unavailable):
        spec(verify=folder / "stranger.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it alone tells the names of files")
def test_a_folder_of_authorities(spec, folder, tmp_path, monkeypatch):
    authority = folder / "authority.pem"
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-hash", "-in", authority], capture_output=True, text=True
    )
    (tmp_path / f"{shown.stdout.strip()}.0").write_bytes(authority.read_bytes())
    assert spec(verify=tmp_path).name == "arm"
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert spec().name == "arm"


@pytest.mark.parametrize("verify", [True, "stranger.pem"])
def test_what_is_not_trusted_is_told_at_once(spec, server, folder, verify):
    before = server.connected
    with pytest.raises(Unavailable) as caught:
        spec(verify=verify if verify is True else folder / verify, retries=20)
    message = str(caught.value)
    assert message.startswith("expected a certificate that is trusted from https://localhost:")
    assert "verify=" in message
    assert "SSL_CERT_FILE" in message
    assert "dynlearn serve" not in message
    assert server.connected == before + 1


def test_a_certificate_of_another_name(spec, folder):
    with pytest.raises(Unavailable, match="by a name that is in its certificate"):
        spec("127.0.0.1", verify=folder / "authority.pem")


@pytest.mark.parametrize("given", ["argument", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"no certificate", "pipe", "endless"])
def test_a_file_of_no_certificates(spec, tmp_path, monkeypatch, given, content):
    file = tmp_path / "authority.pem"
    if content == "pipe":
        os.mkfifo(file)
    elif content == "endless":
        file.touch()
        os.truncate(file, 2**40)
    elif content is not None:
        file.write_bytes(content)
    options = {"verify": file} if given == "argument" else {}
    if given != "argument":
        monkeypatch.setenv(given, str(file))
    name = "verify" if given == "argument" else given
    with pytest.raises(InvalidInput, match=f"{name}: expected a file of certificates .*{file}"):
        spec(**options)


def test_http_reads_no_certificates(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nothing")
    DynamicsClient("http://127.0.0.1:1", "arm").close()


def test_a_server_without_tls():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with (
            DynamicsClient(url, "arm") as client,
            pytest.raises(Unavailable, match="plain HTTP, ask it at http://"),
        ):
            assert client.spec
        thread.join()
