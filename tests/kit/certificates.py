"""Certificates for tests of TLS, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kit.support import PATIENCE

#: The host that the server's certificate is for.
HOST = "server.test"
PASSWORD = "a password"

#: What whoever looks strictly, as Python does from 3.13 on, wants to find in an authority's
#: certificate, and in what it has signed.
SIGNS = "keyUsage=critical,keyCertSign,cRLSign"
SIGNED = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


@dataclass
class Certificate:
    """A certificate and its key, each a PEM file."""

    certfile: Path
    keyfile: Path


class Authority:
    """An authority, in a directory of its own, that certifies what tests need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = self._key("ca")
        command = ("req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-addext", SIGNS)
        self._openssl(*command, *_named("tests"))
        self.server = self.certify("server", f"DNS:{HOST},DNS:localhost,IP:127.0.0.1,IP:::1")

    def certify(self, name: str, hosts: str = "", *, days: tuple[str, ...] = ()) -> Certificate:
        """Return a certificate for *hosts*, as OpenSSL's subjectAltName has them."""
        made = self._key(name)
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", *_named(name))
        named = f"subjectAltName={hosts}\n" if hosts else ""
        (self.directory / f"{name}.ext").write_text(SIGNED + named)
        command = f"-in {name}.csr -CA ca.pem -CAkey ca.key -extfile {name}.ext -out {name}.pem"
        self._openssl("x509", "-req", "-CAcreateserial", *command.split(), *days)
        return made

    def self_signed(self, name: str, hosts: str) -> Certificate:
        """Return a certificate that nobody but its owner has signed."""
        made = self._key(name)
        extension = ("-addext", f"subjectAltName={hosts}")
        command = ("req", "-x509", "-new", "-key", f"{name}.key", "-out", f"{name}.pem")
        self._openssl(*command, *_named(name), *extension)
        return made

    def encrypted(self, certificate: Certificate, password: str) -> Certificate:
        """Return *certificate* with its key encrypted."""
        key = self.directory / f"{certificate.keyfile.stem}.encrypted"
        command = ("pkey", "-in", str(certificate.keyfile), "-out", str(key), "-aes256")
        self._openssl(*command, "-passout", f"pass:{password}")
        return Certificate(certificate.certfile, key)

    def chain(self, name: str, hosts: str) -> Certificate:
        """Return a certificate by way of another authority, whose own is in the same file."""
        between = self._key(f"{name}-ca")
        extensions = self.directory / "ca.ext"
        extensions.write_text(f"{SIGNED}basicConstraints=critical,CA:TRUE\n{SIGNS}\n")
        stem = f"{name}-ca"
        self._openssl("req", "-new", "-key", f"{stem}.key", "-out", f"{stem}.csr", *_named(stem))
        command = f"-in {stem}.csr -CA ca.pem -CAkey ca.key -extfile ca.ext -out {stem}.pem"
        self._openssl("x509", "-req", "-CAcreateserial", *command.split())
        made = self._key(name)
        (self.directory / f"{name}.ext").write_text(f"{SIGNED}subjectAltName={hosts}\n")
        self._openssl("req", "-new", "-key", f"{name}.key", "-out", f"{name}.csr", *_named(name))
        command = f"-in {name}.csr -CA {stem}.pem -CAkey {stem}.key -extfile {name}.ext"
        self._openssl("x509", "-req", "-CAcreateserial", *command.split(), "-out", f"{name}.pem")
        both = made.certfile.read_text() + between.certfile.read_text()
        made.certfile.write_text(both)
        return made

    def _key(self, name: str) -> Certificate:
        curve = ("-pkeyopt", "ec_paramgen_curve:P-256")
        self._openssl("genpkey", "-algorithm", "EC", *curve, "-out", f"{name}.key")
        return Certificate(self.directory / f"{name}.pem", self.directory / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr


def _named(name: str) -> tuple[str, str]:
    return "-subj", f"/CN={name}"
