"""``bufferevent_ssl.h``: bufferevents that speak TLS, by the OpenSSL that libevent is linked with.

Python's `ssl` module can't be used: it doesn't give access to its ``SSL *``, and may be linked with
another OpenSSL, whose objects mean nothing to libevent's (I4).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from libevent_py import errors
from libevent_py._core import convert, load
from libevent_py._core.handle import Handle, Making
from libevent_py._core.pointers import owned
from libevent_py._ffi import ffi, lib
from libevent_py.enums import BufferEventFlag, TlsState, TlsVersion
from libevent_py.errors import TlsError
from libevent_py.event.base import EventBase

if TYPE_CHECKING:
    from libevent_py._ffi import Arguments, CData, Given, Result, Unpack
    from libevent_py.bufferevent.bufferevent import BufferEvent
    from libevent_py.bufferevent.plans import Plan

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


#: What to do about a bufferevent without TLS.
MAKE_IT = "make it by BufferEvent.tls() or BufferEvent.tls_filter()"
SHUTDOWN_INSTEAD = (
    "shutdown() sends TLS's closing notice; shut the socket down by "
    "socket.socket(fileno=os.dup(bev.fd)), when the output is empty"
)


class TlsContext(Handle):
    """The settings that TLS connections share: certificates, whom to trust, protocols, versions.

    You may close or drop it while connections use it.
    """

    __slots__ = ("_check_hostname", "_server_side", "_verify")

    def __init__(
        self,
        *,
        server_side: bool = False,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        password: str | bytes | None = None,
        verify: bool | None = None,
        check_hostname: bool = True,
        cafile: Path | None = None,
        capath: Path | None = None,
        alpn_protocols: Iterable[str] = (),
        minimum_version: int = TlsVersion.TLSv1_2,
        maximum_version: int | None = None,
        ciphers: str | None = None,
        ciphersuites: str | None = None,
    ) -> None:
        """Make a context for clients or, with *server_side*, for servers.

        *certfile* is a PEM file with the certificate and its chain, *keyfile* one with the private
        key, by default the same file; *password* decrypts the key. A server needs a certificate, a
        client only if the server asks for one.

        With *verify*, the default for clients, a peer must have a certificate from a trusted
        authority: one in *cafile*, a PEM file, or in *capath*, a directory as ``openssl rehash``
        makes it; without both, one that the system trusts. With *check_hostname* a server's
        certificate must also be for *server_hostname*.

        *alpn_protocols* are protocol names, the best first: the server chooses one, and refuses a
        client that offers only others. *ciphers* is OpenSSL's list for TLS 1.2 and older,
        *ciphersuites* the one for TLS 1.3.

        Raises `OSError` for a file that can't be read, `TlsError` for what OpenSSL refuses, and
        `LibeventError` when this module was built without TLS.
        """
        self._check_unmade()
        _check_built()
        if certfile is None and (server_side or keyfile is not None):
            raise ValueError("certfile must be given for a server, and with a keyfile")
        self._server_side = bool(server_side)
        self._verify = not server_side if verify is None else bool(verify)
        self._check_hostname = bool(check_hostname) and self._verify and not server_side
        protocols = _protocols(alpn_protocols)
        method = lib.TLS_server_method if server_side else lib.TLS_client_method
        super().__init__(_call(owned, lib.SSL_CTX_free, lib.SSL_CTX_new, method()))
        self._set_versions(minimum_version, maximum_version)
        lib.SSL_CTX_set_mode(self.pointer, lib.SSL_MODE_RELEASE_BUFFERS)
        if certfile is not None:
            self._use_certificate(certfile, certfile if keyfile is None else keyfile, password)
        if self._verify:
            self._trust(cafile, capath)
        if server_side:  # otherwise a session of a verified client can't be resumed
            _call(lib.SSL_CTX_set_session_id_context, self.pointer, b"libevent_py", 11)
        if protocols and server_side:
            _call(lib.evpy_tls_offer, self.pointer, protocols, len(protocols))
        elif protocols:
            _call(_unlike_others, self.pointer, protocols)
        if ciphers is not None:
            self._set_ciphers(lib.SSL_CTX_set_cipher_list, ciphers, "ciphers")
        if ciphersuites is not None:
            self._set_ciphers(lib.SSL_CTX_set_ciphersuites, ciphersuites, "ciphersuites")

    def _facts(self, ask: bool) -> Iterator[str]:
        yield "for servers" if self._server_side else "for clients"
        yield "verifies" if self._verify else "doesn't verify"
        if self._check_hostname:
            yield "checks host names"

    def _set_versions(self, minimum: int, maximum: int | None) -> None:
        lowest = TlsVersion(minimum)
        highest = TlsVersion.TLSv1_3 if maximum is None else TlsVersion(maximum)
        if lowest > highest:
            raise ValueError(
                f"maximum_version must be at least {lowest.name}, the minimum, not {highest.name}"
            )
        _call(lib.SSL_CTX_set_min_proto_version, self.pointer, lowest)
        if maximum is not None:
            _call(lib.SSL_CTX_set_max_proto_version, self.pointer, highest)

    def _use_certificate(self, certfile: Path, keyfile: Path, password: str | bytes | None) -> None:
        certificate, key = _readable(certfile), _readable(keyfile)
        secret = password.encode() if isinstance(password, str) else password
        if secret is not None and not isinstance(secret, bytes):
            raise TypeError(f"password must be text or bytes, not {password!r}")
        _call(
            lib.evpy_tls_use_certificate,
            self.pointer,
            certificate,
            key,
            ffi.NULL if secret is None else secret,
            len(secret or b""),
            subject=f"certfile {os.fspath(certfile)!r}, keyfile {os.fspath(keyfile)!r}",
        )

    def _trust(self, cafile: Path | None, capath: Path | None) -> None:
        mode = lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        lib.evpy_tls_set_verify(self.pointer, mode)
        if cafile is None and capath is None and load.is_binary:
            cafile, capath = _systems_certificates()
        if cafile is None and capath is None:
            _call(lib.SSL_CTX_set_default_verify_paths, self.pointer)
            return
        if capath is not None:
            os.listdir(capath)
            _call(lib.SSL_CTX_load_verify_locations, self.pointer, ffi.NULL, os.fsencode(capath))
        if cafile is not None:
            _call(
                lib.SSL_CTX_load_verify_locations,
                self.pointer,
                _readable(cafile),
                ffi.NULL,
                subject=f"cafile {os.fspath(cafile)!r}",
            )

    def _set_ciphers(
        self, function: Callable[[Given, Given], int], names: str, argument: str
    ) -> None:
        if not isinstance(names, str):
            raise TypeError(f"{argument} must be text, not {names!r}")
        if "\0" in names:
            raise ValueError(f"{argument} must be names, not {names!r}")
        _call(function, self.pointer, names.encode(), subject=f"{argument} {names!r}")

    @property
    def server_side(self) -> bool:
        """Whether the context is for servers."""
        return self._server_side

    @property
    def verify(self) -> bool:
        """Whether peers must have a trusted certificate."""
        return self._verify

    @property
    def check_hostname(self) -> bool:
        """Whether a server's certificate must be for the *server_hostname* of the connection."""
        return self._check_hostname

    def close(self) -> None:
        """Free the context, once no connection uses it; a second time does nothing."""
        self._take()

    def _session(self, state: int | None, server_hostname: str | None) -> Session:
        """Check the arguments, and make a new session of this context."""
        if state is None:
            state = TlsState.ACCEPTING if self._server_side else TlsState.CONNECTING
        state = TlsState(state)
        if state == TlsState.OPEN:
            raise ValueError("state OPEN is for an SSL * whose handshake is done, not a TlsContext")
        if (state == TlsState.ACCEPTING) is not self._server_side:
            side = "server" if self._server_side else "client"
            raise ValueError(f"state can't be {state.name} with a {side}'s TlsContext")
        if server_hostname is None and self._check_hostname:
            raise ValueError(
                "server_hostname must name the host that the server's certificate must be for; if "
                "that doesn't matter, make the TlsContext with check_hostname=False"
            )
        if server_hostname is not None and self._server_side:
            raise ValueError("server_hostname is for clients")
        ssl = _call(owned, lib.SSL_free, lib.SSL_new, self.pointer, subject="SSL_new")
        session = Session(ssl, state)
        if server_hostname is not None:
            session.expect(server_hostname, self._check_hostname)
        return session


class Session:
    """The TLS session of one bufferevent: how it begins, and why it has failed.

    The bufferevent owns the ``SSL *``, which knows what the handshake has agreed on.
    """

    __slots__ = ("_errors", "_failure", "_server_hostname", "ssl", "state")

    def __init__(self, ssl: CData, state: TlsState) -> None:
        #: Used to make the bufferevent, and there until `release`: a reference of its own.
        self.ssl: CData = ssl
        self.state: TlsState = state
        self._server_hostname: str | None = None
        #: Why the connection has failed.
        self._failure: TlsError | None = None
        #: What OpenSSL said about it, the cause first.
        self._errors: list[TlsError] = []

    @classmethod
    def of(
        cls, context: TlsContext | CData, state: int | None, server_hostname: str | None
    ) -> Session:
        """Make a session for *context*, a `TlsContext` or an ``SSL *`` from `libevent_py.lib`."""
        _check_built()
        if isinstance(context, TlsContext):
            return context._session(state, server_hostname)
        if not isinstance(context, ffi.CData) or ffi.typeof(context) is not SSL or not context:
            raise TypeError(f"context must be a TlsContext or an SSL *, not {context!r}")
        if server_hostname is not None:
            raise ValueError("server_hostname must come with a TlsContext, not with an SSL *")
        if state is None:
            raise ValueError("state must be given with an SSL *")
        state = TlsState(state)
        return cls(owned(lib.SSL_free, lib.evpy_tls_hold, context), state)

    @classmethod
    def only_of(cls, bev: BufferEvent, instead: str) -> Session:
        """Return the session of *bev*; if it has none, raise `ValueError` that says *instead*."""
        if bev._tls is None:
            raise ValueError(f"this {type(bev).__name__} has no TLS: {instead}")
        return bev._tls

    def making(self, plan: Plan, fd: int, below: BufferEvent | None) -> Making:
        """Return how C makes the bufferevent of *plan*, through *below* or else the socket *fd*."""
        pointer, options = ffi.NULL, plan.options
        if below is not None:  # with CLOSE_ON_FREE libevent would free *below* by its own rule (H1)
            pointer, options = below.pointer, plan.alone
        return Making(
            lib.evpy_tls_new,
            *(plan.base.pointer, pointer, fd, self.ssl, self.state, options),
            enter=plan.base._call,  # the layer below may be a filter, which C calls
            failure=functools.partial(errors.failed, lib.bufferevent_openssl_socket_new),
        )

    def release(self) -> None:
        """Drop this reference to the ``SSL *``; the bufferevent has its own."""
        del self.ssl

    def expect(self, host: str, check: bool) -> None:
        """Ask the server for *host*; with *check*, require that its certificate is for *host*."""
        if not isinstance(host, str):
            raise TypeError(f"server_hostname must be text, not {host!r}")
        parameters = lib.SSL_get0_param(self.ssl)
        packed = _packed_address(host)
        if packed is None:
            name = _host_name(host)
            _call(lib.SSL_set_tlsext_host_name, self.ssl, name)
            if check:
                flags = lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
                lib.X509_VERIFY_PARAM_set_hostflags(parameters, flags)
                _call(lib.X509_VERIFY_PARAM_set1_host, parameters, name, len(name))
        elif check:
            _call(lib.X509_VERIFY_PARAM_set1_ip, parameters, packed, len(packed))
        self._server_hostname = host

    # What the SSL * of the bufferevent at *pointer* knows, once its handshake is done.

    @staticmethod
    def ssl_of(pointer: CData) -> CData:
        """Return the ``SSL *``.

        The result has its own reference, as a signal handler may close the bufferevent meanwhile.
        """
        return owned(lib.SSL_free, lib.evpy_tls_ssl, pointer)

    def agreed(self, pointer: CData) -> CData:
        """Return the ``SSL *`` while its handshake is done and nothing has failed, else NULL."""
        ssl = self.ssl_of(pointer)
        return ssl if lib.SSL_is_init_finished(ssl) else ffi.NULL

    def version(self, pointer: CData) -> str | None:
        """Return the version of TLS, or None."""
        ssl = self.agreed(pointer)
        return convert.text(lib.SSL_get_version(ssl)) if ssl else None

    def cipher(self, pointer: CData) -> tuple[str, str, int] | None:
        """Return the cipher's name, the version that defines it and its secret bits, or None."""
        ssl = self.agreed(pointer)
        if not ssl:
            return None
        cipher = lib.SSL_get_current_cipher(ssl)
        name, version = lib.SSL_CIPHER_get_name(cipher), lib.SSL_CIPHER_get_version(cipher)
        bits = lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)
        return convert.text(name), convert.text(version), int(bits)

    def certificates(self, pointer: CData, most: int | None = None) -> list[bytes]:
        """Return up to *most* of the certificates that the peer has sent, its own first, as DER."""
        ssl = self.agreed(pointer)
        found: list[bytes] = []
        while ssl and len(found) != most:
            certificate = owned(lib.X509_free, lib.evpy_tls_peer, ssl, len(found))
            if not certificate:
                break
            size = lib.i2d_X509(certificate, ffi.NULL)
            memory = ffi.new("unsigned char[]", max(size, 0))
            lib.i2d_X509(certificate, ffi.new("unsigned char **", memory))
            found.append(bytes(ffi.buffer(memory)))
        return found

    def alpn_protocol(self, pointer: CData) -> str | None:
        """Return the protocol that both sides have agreed on, or None."""
        ssl = self.agreed(pointer)
        if not ssl:
            return None
        name, length = ffi.new("unsigned char **"), ffi.new("unsigned *")
        lib.SSL_get0_alpn_selected(ssl, name, length)
        return bytes(ffi.buffer(name[0], length[0])).decode("latin-1") if length[0] else None

    def server_hostname(self, pointer: CData) -> str | None:
        """Return the host name that the client asks for: as given, or as the client sent it."""
        ssl = self.ssl_of(pointer)
        if self._server_hostname is not None:
            return self._server_hostname
        name = lib.SSL_get_servername(ssl, lib.TLSEXT_NAMETYPE_host_name)
        return convert.text(name) if name else None

    def reused(self, pointer: CData) -> bool:
        """Tell whether the handshake resumed an earlier session."""
        ssl = self.agreed(pointer)
        return bool(ssl) and bool(lib.SSL_session_reused(ssl))

    # After the handshake, and the end.

    def allow_dirty_shutdown(self, pointer: CData, allow: bool) -> None:
        """Treat an end without TLS's closing notice as EOF, or with False as an error."""
        ssl = self.ssl_of(pointer)
        change = lib.SSL_set_options if allow else lib.SSL_clear_options
        change(ssl, lib.SSL_OP_IGNORE_UNEXPECTED_EOF)
        lib.bufferevent_openssl_set_allow_dirty_shutdown(pointer, bool(allow))

    def renegotiate(self, base: EventBase, pointer: CData) -> None:
        """Begin another handshake, or raise `ValueError` if there can't be one."""
        ssl = self.agreed(pointer)
        if not ssl:
            raise ValueError("renegotiate() must wait until the handshake is done")
        if lib.SSL_version(ssl) >= TlsVersion.TLSv1_3:
            raise ValueError("TLS 1.3 can't renegotiate")
        base._call(lib.bufferevent_ssl_renegotiate, pointer)

    def shut_down(self, base: EventBase, pointer: CData) -> bool:
        """Send TLS's closing notice, and return whether it was sent."""
        ssl = self.agreed(pointer)
        if lib.evbuffer_get_length(lib.bufferevent_get_output(pointer)):
            raise ValueError("shutdown() must wait until all output is written")
        if not ssl:
            return False
        lib.ERR_clear_error()
        result = base._call(_shut_down, ssl)
        lib.ERR_clear_error()
        return bool(result)

    def take_errors(self, pointer: CData) -> list[TlsError]:
        """Return OpenSSL's errors, and clear them."""
        found = self._errors + _popped(pointer, self.ssl_of(pointer))[0]
        self._errors = []
        return found

    def forget_failure(self) -> None:
        """Forget the last failure, to begin anew with another connection."""
        self._failure = None

    def why_failed(self, pointer: CData, what: int, code: int) -> OSError | None:
        """Return the error behind the event *what*, or None; *code* is the errno that C gave."""
        ssl = self.ssl_of(pointer)
        found, by_socket = _popped(pointer, ssl)
        if what & BufferEventFlag.CONNECTED:
            self._failure = None
        if not what & BufferEventFlag.ERROR:
            return None
        if self._failure is not None:  # libevent may go on, and fail again as a consequence
            return self._failure
        # If another bufferevent is below, libevent gives no reason for an end without a notice.
        unsaid = what == BufferEventFlag.ERROR and lib.bufferevent_get_underlying(pointer)
        if unsaid and not found and lib.SSL_get_shutdown(ssl) & lib.SSL_RECEIVED_SHUTDOWN:
            return None  # the end came after the peer's closing notice
        ended = lib.evpy_tls_reached(pointer) if unsaid else by_socket and not code
        if ended and not found:
            found = [tls_error(lib.evpy_tls_eof(), ssl)]
        if not found:
            return os_error(code)
        self._errors, self._failure = found, found[0]
        return self._failure


def _shut_down(ssl: CData) -> bool:
    before = lib.evpy_guard_closing()  # or the notice might never leave the bufferevent below
    try:
        sent = lib.SSL_shutdown(ssl) >= 0
    finally:
        if before >= 0:
            lib.evpy_unguard(before)
    return sent or bool(lib.SSL_get_shutdown(ssl) & lib.SSL_SENT_SHUTDOWN)


def _popped(pointer: CData, ssl: CData) -> tuple[list[TlsError], bool]:
    """Return the OpenSSL errors that libevent has kept, and whether one came from the socket."""
    codes: list[int] = []
    while code := lib.bufferevent_get_openssl_error(pointer):
        codes.insert(0, code)  # C returns the latest first (I8)
    known = [code for code in codes if lib.evpy_tls_is_code(code)]
    return [tls_error(code, ssl) for code in known], lib.SSL_ERROR_SYSCALL in codes


def os_error(code: int) -> OSError | None:
    """Return the errno *code* as an exception, or None for 0."""
    return OSError(code, os.strerror(code)) if code else None


#: cffi's type of an ``SSL *``.
SSL = ffi.typeof("struct ssl_st *") if lib.LIBEVENT_PY_HAVE_OPENSSL else None


def tls_error(code: int, ssl: CData | None = None, subject: str = "") -> TlsError:
    """Return OpenSSL's error *code* as an exception about *subject*.

    If a certificate was refused, *ssl* knows why.
    """
    space = ffi.new("char[256]")
    lib.ERR_error_string_n(code, space, len(space))
    library, _, reason = convert.text(space).split(":", 4)[2:]
    mnemonic = reason.upper().replace(" ", "_")
    library = library.removesuffix(" routines").removesuffix(" certificate").upper()
    verdict, why = 0, ""
    if ssl is not None and mnemonic == "CERTIFICATE_VERIFY_FAILED":
        verdict = int(lib.SSL_get_verify_result(ssl))
        why = convert.text(lib.X509_verify_cert_error_string(verdict))
    text = ": ".join(filter(None, (subject, f"[{library}: {mnemonic}] {reason}", why)))
    error = TlsError(lib.SSL_ERROR_SSL, text)
    error.code, error.library, error.reason = code, library, mnemonic
    error.verify_code, error.verify_message = verdict, why
    return error


def _call(
    function: Callable[[Unpack[Arguments]], Result],
    *arguments: Unpack[Arguments],
    subject: str = "",
) -> Result:
    """Return the result of OpenSSL's *function*; if that is 0 or NULL, raise why.

    These functions don't call back, and set errno only for lack of memory; so they don't go through
    `errors.call`.
    """
    lib.ERR_clear_error()
    ffi.errno = 0
    result = function(*arguments)
    if result:
        return result
    short = ffi.errno == errno.ENOMEM
    subject = subject or errors.name_of(function)
    code = lib.ERR_get_error()
    lib.ERR_clear_error()
    failure = tls_error(code, subject=subject) if code else None
    if short or (failure is not None and failure.reason == "MALLOC_FAILURE"):
        raise MemoryError(f"{subject}: {os.strerror(errno.ENOMEM)}")
    raise failure or errors.LibeventError(f"{subject} failed")


def _unlike_others(ctx: CData, protocols: bytes) -> bool:
    return not lib.SSL_CTX_set_alpn_protos(ctx, protocols, len(protocols))


def look(bev: BufferEvent) -> None:
    """Ask C whether OpenSSL has bytes left to deliver, after the events of *bev* have changed."""
    if bev._tls is not None and not bev.closed:
        lib.evpy_tls_look(bev.pointer)


def _protocols(names: Iterable[str]) -> bytes:
    """Return the names of protocols in the encoding of a handshake."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"alpn_protocols must be a collection of names, not {names!r}")
    result = b""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"alpn_protocols must be text, not {name!r}")
        try:
            encoded = name.encode("latin-1")
        except UnicodeEncodeError:  # "?" in its place would be another protocol
            raise ValueError(f"alpn_protocols must be of Latin-1, not {name!r}") from None
        if not 1 <= len(encoded) <= 255:
            raise ValueError(f"alpn_protocols must have 1 to 255 characters each, not {name!r}")
        result += bytes((len(encoded),)) + encoded
    return result


def _packed_address(host: str) -> bytes | None:
    """Return the IPv4 or IPv6 address that *host* is, or None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            return socket.inet_pton(family, host.partition("%")[0])
    return None


def _host_name(host: str) -> bytes:
    """Return the name of a host in the encoding of handshakes and certificates."""
    try:
        name = host.removesuffix(".").encode("idna")
    except UnicodeError as error:
        raise ValueError(f"server_hostname must be the name of a host, not {host!r}") from error
    if not name or name[:1] == b"." or b"\0" in name or len(name) > 253:
        raise ValueError(f"server_hostname must be the name of a host, not {host!r}")
    return name


#: Where systems have the certificates that they trust.
KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, the BSDs, macOS
)


def _systems_certificates() -> tuple[Path | None, Path | None]:
    """Return the file and the folder of certificates that the system trusts, as far as found.

    An OpenSSL that was built on another system looks where that one has them.
    """
    import ssl  # not whenever the package is imported

    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return paths.cafile, paths.capath
    return next((path for path in KNOWN if os.path.exists(path)), None), None


def _readable(path: Path) -> bytes:
    """Return *path* as bytes for C, or raise `OSError` if the file can't be read."""
    encoded = os.fsencode(path)  # first: open() takes a descriptor, too, and would close it
    with open(os.fsdecode(encoded), "rb"):
        return encoded


def why_no_tls() -> str | None:
    """Return what is missing if there is no TLS, or None if there is."""
    if not lib.LIBEVENT_PY_HAVE_OPENSSL:
        return (
            "libevent_py was built without TLS, because there was no libevent_openssl: install "
            "libevent's and OpenSSL's development files and build it again"
        )
    if not lib.LIBEVENT_PY_HAVE_TLS:
        return (
            "libevent_py was built without TLS, because there were no development files of the "
            "OpenSSL that libevent_openssl is linked with: install them and build it again"
        )
    linked = lib.evpy_tls_linked()
    if linked >> 28 != lib.OPENSSL_VERSION_NUMBER >> 28:
        return (
            f"libevent_py was built with OpenSSL {lib.OPENSSL_VERSION_NUMBER >> 28}, but the "
            f"libevent_openssl that the loader found is linked with OpenSSL {linked >> 28}"
        )
    return None


def _check_built() -> None:
    """Raise an error that says what is missing, if there is no TLS."""
    reason = why_no_tls()
    if reason is not None:
        raise errors.LibeventError(reason)
