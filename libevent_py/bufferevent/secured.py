"""What a bufferevent has of TLS: what was agreed, how it ends, and why it failed."""

from __future__ import annotations

import os
from typing import Any

from libevent_py._core import convert
from libevent_py._core.pointers import owned
from libevent_py._ffi import ffi, lib
from libevent_py.bufferevent.limits import AT_ONCE, Limited, RateLimit
from libevent_py.bufferevent.tls import Connection, tls_error
from libevent_py.enums import BufferEventFlag, TlsVersion
from libevent_py.errors import TlsError


class Secured(Limited):
    """What `BufferEvent` has of TLS; what was agreed on is known from CONNECTED to a failure."""

    __slots__ = ("_held", "_tls")

    #: None where there is no TLS.
    _tls: Connection | None
    #: Its pointer while it is out of reach, else None.
    _held: Any

    def hold(self) -> bool:
        """Put it out of reach: what it stands on has called back, and OpenSSL may have called that.

        Meanwhile its buffers must stay as they are, and nothing may call OpenSSL for it (I5).
        Return whether it has been within reach.
        """
        if self._held is not None:
            return False
        self._held = self._take()
        return self._held is not None

    def let_go(self) -> None:
        """Put it within reach again."""
        pointer, self._held = self._held, None
        if self.base.parked is None:
            self._put(pointer)
        else:  # this is a forked child
            self.base.parked[id(self)] = self, pointer

    def _unusable(self) -> Exception:
        if self._held is None:
            return super()._unusable()
        return RuntimeError(
            f"this {type(self).__name__} can't be used in a callback of what it stands on"
        )

    def close(self) -> None:
        if self._held is not None:
            raise self._unusable()
        super().close()

    def _kept_by_c(self, limit: RateLimit) -> RateLimit:
        """Return what C keeps to for *limit*: for TLS it reckons in an int, and reads no more."""
        if self._tls is None:
            return limit
        buckets = limit.read_rate, limit.read_burst, limit.write_rate, limit.write_burst
        return RateLimit(*(min(number, AT_ONCE) for number in buckets), tick=limit.tick)

    def _secured(self) -> tuple[Connection, Any]:
        """Return what it has of TLS and its ``SSL *``, or raise an error if it has none."""
        self.base.check_thread()
        pointer = self.pointer
        if self._tls is None:
            raise ValueError(
                f"this {type(self).__name__} has no TLS: BufferEvent.tls() and tls_filter() make "
                "those that have"
            )
        # A reference of its own: a signal handler may close the bufferevent before it is used.
        return self._tls, owned(lib.SSL_free, lib.evpy_tls_ssl, pointer)

    def _agreed(self) -> Any:
        """Return the ``SSL *`` while its handshake is done and nothing has failed, else NULL."""
        ssl = self._secured()[1]
        return ssl if lib.SSL_is_init_finished(ssl) else ffi.NULL

    @property
    def ssl(self) -> Any:
        """The ``SSL *``, for calling `libevent_py.lib` with it while the bufferevent is open.

        It ends with the bufferevent: its memory stays for as long as it is held here, but where it
        stands on another bufferevent nothing may be read or written by it any more.
        Wraps ``bufferevent_openssl_get_ssl``.
        """
        return self._secured()[1]

    @property
    def tls_version(self) -> str | None:
        """The version of TLS, such as "TLSv1.3", or None before the handshake is done."""
        ssl = self._agreed()
        return convert.text(lib.SSL_get_version(ssl)) if ssl else None

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher's name, the version that defines it and its secret bits, or None before the
        handshake is done.
        """
        ssl = self._agreed()
        if not ssl:
            return None
        cipher = lib.SSL_get_current_cipher(ssl)
        name, version = lib.SSL_CIPHER_get_name(cipher), lib.SSL_CIPHER_get_version(cipher)
        bits = lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)
        return convert.text(name), convert.text(version), int(bits)

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER, or None where it has shown none."""
        return next(iter(self._certificates(1)), None)

    @property
    def peer_certificate_chain(self) -> list[bytes]:
        """The certificates as DER that the peer has sent, its own first; not all need be believed.

        A resumed session has only the peer's own.
        """
        return self._certificates(None)

    def _certificates(self, most: int | None) -> list[bytes]:
        ssl = self._agreed()
        found: list[bytes] = []
        while ssl and len(found) != most:
            certificate = lib.evpy_tls_peer(ssl, len(found))
            if not certificate:
                break
            size = lib.i2d_X509(certificate, ffi.NULL)
            memory = ffi.new("unsigned char[]", max(size, 0))
            lib.i2d_X509(certificate, ffi.new("unsigned char **", memory))
            lib.X509_free(certificate)
            found.append(bytes(ffi.buffer(memory)))
        return found

    @property
    def alpn_protocol(self) -> str | None:
        """The protocol that both sides have agreed on, or None."""
        ssl = self._agreed()
        if not ssl:
            return None
        name, length = ffi.new("unsigned char **"), ffi.new("unsigned *")
        lib.SSL_get0_alpn_selected(ssl, name, length)
        return bytes(ffi.buffer(name[0], length[0])).decode("latin-1") if length[0] else None

    @property
    def server_hostname(self) -> str | None:
        """The host that the client means: as it was given, or as the client has told, or None."""
        tls, ssl = self._secured()
        if tls.server_hostname is not None:
            return tls.server_hostname
        name = lib.SSL_get_servername(ssl, lib.TLSEXT_NAMETYPE_host_name)
        return convert.text(name) if name else None

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        ssl = self._agreed()
        return bool(ssl) and bool(lib.SSL_session_reused(ssl))

    @property
    def allow_dirty_shutdown(self) -> bool:
        """Whether a connection that ends without TLS's own notice has come to its end.

        By default that is an ERROR, because anybody on the way could have cut it off; when set it
        is EOF, also with OpenSSL 3, of which libevent 2.1 itself doesn't know.
        Wraps ``bufferevent_openssl_get_allow_dirty_shutdown``,
        ``bufferevent_openssl_set_allow_dirty_shutdown``.
        """
        self._secured()
        return bool(lib.bufferevent_openssl_get_allow_dirty_shutdown(self.pointer))

    @allow_dirty_shutdown.setter
    def allow_dirty_shutdown(self, allow: bool) -> None:
        ssl = self._secured()[1]
        change = lib.SSL_set_options if allow else lib.SSL_clear_options
        change(ssl, lib.SSL_OP_IGNORE_UNEXPECTED_EOF)
        lib.bufferevent_openssl_set_allow_dirty_shutdown(self.pointer, bool(allow))

    def renegotiate(self) -> None:
        """Begin another handshake on a connection up to TLS 1.2; `on_event` will say CONNECTED.

        Raises `ValueError` with TLS 1.3, which has none (I7), and before the first handshake is
        done. Servers made by OpenSSL 3 refuse a client's, unless their context has the option
        ``lib.SSL_OP_ALLOW_CLIENT_RENEGOTIATION``. Wraps ``bufferevent_ssl_renegotiate``.
        """
        ssl = self._agreed()
        if not ssl:
            raise ValueError("renegotiate() must wait until the handshake is done")
        if lib.SSL_version(ssl) >= TlsVersion.TLSv1_3:
            raise ValueError("TLS 1.3 can't renegotiate")
        self.base.call(lib.bufferevent_ssl_renegotiate, self.pointer)
        self.look()

    def shutdown(self) -> bool:
        """Tell the peer that nothing more will come, by TLS's own notice; libevent never does.

        The peer's own data still come. Return whether the notice is out: not before the handshake
        is done, after a failure, or while the socket takes no more. Raises `ValueError` while there
        is output, which would be lost: have it written before.
        """
        ssl = self._agreed()
        if lib.evbuffer_get_length(lib.bufferevent_get_output(self.pointer)):
            raise ValueError("shutdown() must wait until all output is written")
        if not ssl:
            return False
        lib.ERR_clear_error()
        result = self.base.call(_shut_down, ssl)
        lib.ERR_clear_error()
        return bool(result)

    def tls_errors(self) -> list[TlsError]:
        """Return and forget what OpenSSL said about failures, the cause first: three at most.

        Wraps ``bufferevent_get_openssl_error``.
        """
        tls, ssl = self._secured()
        found = tls.errors + self._popped(ssl)[0]
        tls.errors = []
        return found

    def _popped(self, ssl: Any) -> tuple[list[TlsError], bool]:
        """Return what libevent has kept of OpenSSL's errors, and whether the socket's was one."""
        codes: list[int] = []
        while code := lib.bufferevent_get_openssl_error(self.pointer):
            codes.insert(0, code)  # the last that came is popped first (I8)
        known = [code for code in codes if lib.evpy_tls_is_code(code)]
        return [tls_error(code, ssl) for code in known], lib.SSL_ERROR_SYSCALL in codes

    def why_failed(self, what: int, code: int) -> OSError | None:
        """Return what the event *what* has failed by; *code* is the errno that came with it."""
        if self._tls is None:
            return _os_error(code) if what & BufferEventFlag.ERROR else None
        tls, ssl = self._secured()
        found, by_socket = self._popped(ssl)
        if what & BufferEventFlag.CONNECTED:
            tls.failure = None
        if not what & BufferEventFlag.ERROR:
            return None
        if tls.failure is not None:  # libevent may go on, and fail again for no reason of its own
            return tls.failure
        # Of an end without notice libevent says nothing more where another bufferevent is below.
        unsaid = what == BufferEventFlag.ERROR and lib.bufferevent_get_underlying(self.pointer)
        if unsaid and not found and lib.SSL_get_shutdown(ssl) & lib.SSL_RECEIVED_SHUTDOWN:
            return None  # it has come after TLS's own end, of which the peer gave notice
        ended = lib.evpy_tls_reached(self.pointer) if unsaid else by_socket and not code
        if ended and not found:
            found = [tls_error(lib.evpy_tls_eof(), ssl)]
        if not found:
            return _os_error(code)
        tls.errors, tls.failure = found, found[0]
        return tls.failure

    def look(self) -> None:
        """Have C look whether OpenSSL holds something back, after its events have been changed."""
        if self._tls is not None and not self.closed:
            lib.evpy_tls_look(self.pointer)

    def forget_failure(self) -> None:
        """Begin anew, with another connection."""
        if self._tls is not None:
            self._tls.failure = None


def _shut_down(ssl: Any) -> bool:
    return lib.SSL_shutdown(ssl) >= 0 or bool(lib.SSL_get_shutdown(ssl) & lib.SSL_SENT_SHUTDOWN)


def _os_error(code: int) -> OSError | None:
    return OSError(code, os.strerror(code)) if code else None
