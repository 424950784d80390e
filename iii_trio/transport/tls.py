"""TLS over a stream that is read and written without waiting (RFC 8446).

`trio.SSLStream` waits in every `send_all` and takes one record a read, which costs up to fifteen times the clear path.
This stream runs `ssl.SSLObject` on memory buffers instead. A read decrypts every record that the transport delivered,
straight into the reader's buffer. A write encrypts many small frames into few records.

Plain bytes count as written once they are encrypted, because a record cannot be taken back. Ciphertext that the transport
did not take stays here as `unsent`, and nothing more is encrypted until it has left. The owner of the writing side
(`Outbox`) waits with `wait_send_all_might_not_block` while there is any.

Ends are told above TLS, by WebSocket's Close. So a transport that ends without a `close_notify` alert counts as a plain end
of stream, as it does for `https_compatible` in Trio.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast, final

import trio

from .socket import Buffer, Socket

_BATCH: Final = 131_072
"""Plain bytes that are encrypted before the transport is asked to take them."""
_RECORD: Final = 16_384
"""The largest record of TLS. Smaller frames are joined up to this size, because each record costs a MAC and a header."""
_CIPHERTEXT: Final = memoryview(bytearray(262_144))
"""Where every connection reads ciphertext. Nothing waits between a read and the hand-over to the SSL object."""
_ALERTS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer asks for a certificate of this side, and none was shown",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the certificate of this side",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this side has expired",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer refused the handshake (it may ask for a certificate of this side)",
}
"""The alerts that need their meaning, by OpenSSL's names."""


@final
class TlsStream(trio.abc.HalfCloseableStream):
    """One end of a TLS connection over `transport`, which it owns.

    The handshake happens with the first read or write, or by `do_handshake`. Only one task may wait for it.
    A server's context should send no session tickets (`num_tickets = 0`), because a client that never reads them turns its
    own close into a reset.
    """

    def __init__(
        self,
        transport: Socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._shaken = False
        self._at_end = False
        self._more_waits = False
        """Whether the transport's last read filled the buffer, so that more waits, most likely."""
        self._read_error: ssl.SSLError | None = None
        """The error that came behind the bytes of the last read. OpenSSL gives another one to the next read."""
        self._receiving = self._sending = False
        self._unsent: memoryview | None = None

    @property
    def unsent(self) -> int:
        """The bytes of ciphertext that the transport has not taken yet."""
        return len(self._unsent) if self._unsent is not None else 0

    @property
    def peer(self) -> str | None:
        """The peer's address, as `Socket.peer`."""
        return self.transport.peer

    @property
    def closed(self) -> bool:
        """Whether this side closed the transport."""
        return self.transport.closed

    async def do_handshake(self) -> None:
        """Complete the handshake.

        Raises trio.BrokenResourceError, with the ssl.SSLError as its cause, if the peers do not agree.
        If cancelled: the connection is in the middle of its handshake and can only be closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._shake():
            # The peer went away, and waiting would never end.
            if self._at_end:
                raise trio.BrokenResourceError("the peer ended the connection during the TLS handshake")
            await self._flush()
            await self.transport.wait_readable()
        await self._flush()

    # --- without waiting

    def read_now(self, into: memoryview) -> int | None:
        """Decrypt the available data into `into`.

        Returns the number of bytes, 0 at the end of the stream, or None if nothing is available yet.
        Raises trio.BrokenResourceError and trio.ClosedResourceError.
        """
        if not self._shaken and not self._shake():
            return 0 if self._at_end else None
        if self._read_error is not None:
            raise self._fail(self._read_error) from self._read_error
        got, room, tls, incoming = 0, len(into), self._tls, self._incoming
        read = cast("Callable[[int, memoryview], int]", tls.read)  # with a buffer it returns a count
        while got < room:
            # OpenSSL is asked only where it has something to decrypt. Its answer that it has nothing is an exception.
            if not incoming.pending and not tls.pending():
                if got and not self._more_waits:
                    break
                try:
                    if self._at_end or not self._feed():
                        break
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    if not got:
                        raise
                    break  # errors of the transport are sticky, so the next read raises this one
            try:
                n = read(room - got, into[got:] if got else into)
            except ssl.SSLWantReadError:
                pass  # the rest of a record has not come yet, or it was a record of the protocol itself
            except ssl.SSLZeroReturnError:
                self._at_end = True
                break
            except ssl.SSLError as error:
                if self._at_end:
                    break  # the transport ended between two records
                if got:
                    self._read_error = error
                    break
                raise self._fail(error) from error
            else:
                if not n:
                    self._at_end = True
                    break
                got += n
        if self._outgoing.pending and not self._at_end:  # an answer of the protocol itself, such as to a key update
            self._push()
        if got:
            return got
        return 0 if self._at_end else None

    def write_now(self, parts: Sequence[Buffer]) -> int:
        """Encrypt a prefix of `parts` and write what the transport takes; 0 means full.

        Raises trio.BrokenResourceError and trio.ClosedResourceError.
        """
        if not self._shaken and not self._shake():
            return 0
        if self._unsent is not None and not self._push():
            return 0
        # Most writes are small, and one record takes them all.
        if len(parts) > 1 and sum(map(len, parts)) <= _RECORD:
            parts = (b"".join(parts),)
        took = 0
        batch = bytearray()
        for part in parts:
            if len(part) >= _RECORD:
                if batch:
                    took += self._encrypt(batch)
                    batch = bytearray()
                took += self._encrypt_large(part)
            else:
                batch += part
                if len(batch) >= _RECORD:
                    took += self._encrypt(batch)
                    batch = bytearray()
            if self._unsent is not None:
                return took  # the parts behind this one were not begun
            if self._outgoing.pending >= _BATCH and not self._push():
                return took + (self._encrypt(batch) if batch else 0)
        if batch:
            took += self._encrypt(batch)
        self._push()
        return took

    def close(self) -> None:
        """Close the transport now. Tasks that wait get ClosedResourceError."""
        self.transport.close()

    def nothing_unread(self) -> bool:
        """Return whether closing now would be orderly, as `Socket.nothing_unread`."""
        return not self._tls.pending() and self.transport.nothing_unread()

    def input_waits(self) -> bool:
        """Return whether the peer sent something that was not read yet."""
        return bool(self._tls.pending() or self._incoming.pending) or self.transport.input_waits()

    # --- Trio's stream contract

    async def wait_readable(self) -> None:
        """Wait until `read_now` would not return None because of an idle transport."""
        # The end, or an error, may have come in one read with the bytes before it. A transport that is open says no more.
        if self._at_end or self._read_error is not None:
            await trio.lowlevel.checkpoint()
        else:
            await self.transport.wait_readable()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio.abc.ReceiveStream. If cancelled: nothing was read."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            into = memoryview(bytearray(max_bytes or 65_536))
            while (n := self.read_now(into)) is None:
                await self.transport.wait_readable()
            return bytes(into[:n])
        finally:
            self._receiving = False

    async def send_all(self, data: Buffer) -> None:
        """As trio.abc.SendStream. If cancelled: a prefix of `data` may have been sent."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            if self._shaken:
                await trio.lowlevel.checkpoint()
            else:
                await self.do_handshake()
            self.transport.check_sendable()
            view = memoryview(data)
            sent = 0
            while sent < len(view):
                sent += self.write_now([view[sent:]])
                await self._flush()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport takes something, and write ciphertext that waits into it.

        Raises trio.BrokenResourceError, also for a peer found dead meanwhile (clause C3.3).
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await self.transport.wait_send_all_might_not_block()
        self._push()  # once only, so that the caller sees each progress

    async def send_eof(self) -> None:
        """End the transport's sending side behind the written bytes.

        No `close_notify` is sent, because OpenSSL could not read what the peer still sends after one.
        """
        await self._flush()
        await self.transport.send_eof()

    async def aclose(self) -> None:
        """Close the transport. Always succeeds."""
        self.close()
        await trio.lowlevel.checkpoint()

    # --- inside

    def _shake(self) -> bool:
        """Continue the handshake with the available data; return whether it is complete."""
        while not self._shaken:
            try:
                self._tls.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                self._push()  # before waiting: the peer may need our part first
                if not self._feed():
                    return False
            except ssl.SSLError as error:
                raise self._fail(error) from error
        self._push()
        return True

    def _feed(self) -> bool:
        """Hand the transport's available ciphertext to the SSL object; return whether there was any."""
        n = self.transport.read_now(_CIPHERTEXT)
        self._more_waits = n == len(_CIPHERTEXT)
        # Nothing has arrived yet.
        if n is None:
            return False
        if not n:
            self._at_end = True
            self._incoming.write_eof()
            return False
        self._incoming.write(_CIPHERTEXT[:n])
        return True

    def _encrypt(self, data: Buffer) -> int:
        try:
            return self._tls.write(data)
        except ssl.SSLError as error:  # SSLWantReadError too: renegotiation, which TLS 1.3 no longer has
            raise self._fail(error) from error

    def _encrypt_large(self, data: Buffer) -> int:
        """Encrypt a large buffer batch by batch; stop where the transport is full."""
        view = memoryview(data)
        took = 0
        while took < len(view):
            took += self._encrypt(view[took : took + _BATCH])
            if not self._push():
                break
        return took

    def _push(self) -> bool:
        """Write waiting ciphertext; return whether all of it left."""
        while True:
            # Ciphertext of an earlier call leaves first, because records have an order.
            if self._unsent is not None:
                data: Buffer = self._unsent
            elif self._outgoing.pending:
                data = self._outgoing.read()
            else:
                return True
            n = self.transport.write_now([data])
            if n != len(data):
                self._unsent = memoryview(data)[n:]
                return False
            self._unsent = None  # more may have been prepared meanwhile

    async def _flush(self) -> None:
        while not self._push():
            await self.transport.wait_send_all_might_not_block()

    def _fail(self, error: ssl.SSLError) -> trio.BrokenResourceError:
        """Tell the peer by the alert that OpenSSL prepared, and return the error to raise."""
        try:
            self._push()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return trio.BrokenResourceError(f"TLS failed: {explain_alert(error)}")


def explain_alert(error: ssl.SSLError) -> str:
    """Return what the error means, as far as it is an alert of a peer that refused this side's certificate."""
    return _ALERTS.get(error.reason or "", error.reason or str(error))
