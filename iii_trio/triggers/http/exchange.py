"""One request and its response: middleware, body, condition, handler, and two channels between client and handler.

The order of work is iii's: route, global middleware, channels, body, condition, route middleware, handler. The request's
body flows into one channel while the handler runs, and the handler's `response` channel flows to the client. Both wait for
each other by the channels' own bounds, so neither a slow client nor a slow handler makes the engine keep more.

Until a worker uses one of the channels, the task of the connection waits alone: for the answer, and for the client to leave.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from typing import Any, Final, final

import h11
import trio

from ...errors import CallError, ChannelBroken, ConnectionFailed
from ...lowlevel import CallHandle, begin_call, end_nowait, open_channels, receive_pieces, send_now, watch_channel
from ...nursery import open_service_nursery
from ...transport.frames import Buffer
from ...wire.codes import REQUEST_OVER
from ...worker import Channel
from .client_stream import ClientGone
from .connection import BrokenBody, HttpConnection
from .request import LARGE_BODY_BYTES, check_body, handler_input, is_json, middleware_input
from .response import Response, ResponseEvent, ResponseState, Whole, failure, responded, returned
from .routes import Match
from .settings import HttpConfig
from .shared import Shared

_SMALL_BYTES: Final = 16 * 1024
"""The largest answer that is written while the task of the connection waits."""


class Refused(Exception):
    """The request is answered without its handler."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole


@final
class Exchange:
    """One request that has a route."""

    def __init__(
        self,
        shared: Shared,
        connection: HttpConnection,
        config: HttpConfig,
        match: Match,
        method: str,
        query: dict[str, str | list[str]],
        headers: dict[str, str],
        common: list[tuple[str, str]],
        traceparent: str | None,
    ) -> None:
        self._shared = shared
        self._worker = shared.worker
        self._connection = connection
        self._config = config
        self._match = match
        self._method = method
        self._query = query
        self._headers = headers
        self._common = common
        self._traceparent = traceparent
        self._kept_bytes = 0
        self._response = Response(has_channel=match.route.channels)
        self._conversation: trio.CancelScope | None = None
        """The scope of the tasks that carry the bodies, while there are any."""
        self._deadline = trio.CancelScope()
        self._late = "TIMEOUT", "The handler did not answer"
        """The code and text for a deadline that passes now."""
        self._is_channel_used = False
        """Whether a worker has used a channel of this request, as far as the engine tells."""
        self._handler_is_over = False
        self._response_is_over = False
        self.status = 0
        """The status that was sent, or 0 if none was."""
        self.truncated = False
        """Whether the client was shown that the body is not whole."""
        self.client_left = False
        self.when_answered: Callable[[], object] | None = None
        """Called when the response was written while the task of the connection waits on, in place of the end of `run`."""
        self._is_answered = False
        """Whether the response was written, in whole or in part, while the task of the connection waits."""

    async def run(self) -> None:
        """Serve the request to its end. Raises ClientGone. If cancelled: the handler is cancelled, the client cut."""
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._config.timeout_seconds) as self._deadline:
                await self._serve()
            # A response that has begun is never late, but its handler may be.
            if self._deadline.cancelled_caught and not self.status:
                code, text = self._late
                timeout = self._config.timeout_seconds
                status = 408 if code == "REQUEST_TIMEOUT" else 504
                await self._answer(failure(status, code, f"{text} within {timeout:g} s."))
            # The deadline may have passed in the turn in which a part of the answer was written.
            await self._connection.write_rest()
        except Refused as refusal:
            await self._answer(refusal.whole)
        finally:
            self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._shared.kept.add(-self._kept_bytes)
        self._kept_bytes = 0

    # --- the order of work

    async def _serve(self) -> None:
        route = self._match.route
        passing = middleware_input(self._match, self._method, self._query, self._headers)
        for middleware in self._config.middleware:
            await self._pass(middleware.function_id, passing)
        body, body_error, raw = None, None, None
        if is_json(self._headers.get("content-type", "")):
            was, self._late = self._late, ("REQUEST_TIMEOUT", "The JSON body did not come")
            raw = await self._collect()
            self._late = was
            body, body_error = check_body(raw)
            # Others have their turn between two pieces of work on a large body.
            if len(raw) > LARGE_BODY_BYTES:
                await trio.lowlevel.checkpoint()
        given = handler_input(self._match, self._method, self._query, self._headers, body, body_error)
        if route.condition is not None:
            await self._check(route.condition, given)
        for function_id in route.middleware:
            await self._pass(function_id, passing)
        if not route.channels:
            call = await self._begin_call(given)
            # The task may stay here while its connection is idle, and nothing of the body may stay with it.
            del given, body, raw
            await self._converse_alone(call)
            return
        request, response = await self._open_channels()
        try:
            given |= {"request_body": request.reader_ref, "response": response.writer_ref}
            if not raw and self._connection.body_is_read:
                end_nowait(self._worker, request.writer, clean=True)  # there is no body
            await self._converse(given, raw, request, response)
        finally:
            # Whatever was not used is of no use any more. An end that is attached is told the reason.
            why = "the client left" if self.client_left else REQUEST_OVER
            end_nowait(self._worker, request.writer, why)
            end_nowait(self._worker, request.reader, why)
            end_nowait(self._worker, response.reader, why)

    async def _open_channels(self) -> list[Channel]:
        """Open the channels of the request's body and of the response. Raises Refused if the engine gives none."""
        try:
            return await open_channels(self._worker, 2, expires_after_seconds=None)
        except (CallError, ConnectionFailed) as error:
            raise Refused(self._logged(503, _code_of(error), _text_of(error))) from error

    async def _converse_alone(self, call: CallHandle) -> None:
        """Send the result of a handler that has no channels. A body that is not JSON is read and dropped."""
        try:
            await self._wait_quietly(call, [])
            if self._is_answered:
                await self._connection.write_rest()
            else:
                await self._take_result(call)
        except BrokenBody as error:
            raise Refused(failure(400, "BAD_BODY", f"{error}.")) from None
        finally:
            call.give_up("the client left" if self.client_left else REQUEST_OVER)  # unless it is settled

    async def _begin_call(self, given: dict[str, Any]) -> CallHandle:
        """Call the handler. Raises Refused if it cannot be called."""
        route = self._match.route
        try:
            return await begin_call(
                self._worker,
                route.function_id,
                given,
                namespace=route.namespace,
                metadata=route.metadata,
                traceparent=self._traceparent,
                baggage=self._headers.get("baggage"),
            )
        except (CallError, ConnectionFailed) as error:
            raise Refused(self._failed(error)) from error

    async def _converse(self, given: dict[str, Any], raw: bytes | None, request: Channel, response: Channel) -> None:
        """Run the handler between the two channels until the response is complete."""
        call = await self._begin_call(given)
        try:
            if raw is not None or self._connection.body_is_read:
                await self._wait_quietly(call, [response, request] if raw else [response])
                if call.settled and not self._is_channel_used:
                    await self._take_result(call)
            if not self._response.state.is_final:
                await self._stream(call, raw, request, response)
        finally:
            call.give_up("the client left" if self.client_left else REQUEST_OVER)  # unless it is settled
        if self.client_left:
            raise ClientGone("the client left")

    async def _wait_quietly(self, call: CallHandle, channels: list[Channel]) -> None:
        """Wait until the call is settled, one of these channels is used, or the client leaves. Raises ClientGone.

        A small request needs no more than this task and this scope. Bodies would need three tasks and an attached reader.
        Returns at once where the engine does not tell who uses a channel.
        """
        with trio.CancelScope() as quiet:

            def used() -> None:
                self._is_channel_used = True
                quiet.cancel(reason="a channel is used")

            def settled() -> None:
                is_done = False
                try:
                    is_done = not channels and self._answer_now(call, quiet)
                finally:
                    if not is_done:
                        quiet.cancel(reason="the handler has answered")

            call.when_settled(settled)
            if not all(watch_channel(self._worker, channel.id, used) for channel in channels):
                self._is_channel_used = True
                return
            try:
                # It may have been settled before the callback was set.
                if not call.settled:
                    # Only a handler without channels is called before its body has been read.
                    while not self._connection.body_is_read and await self._connection.next_chunk() is not None:
                        pass
                    await self._connection.wait_gone()
                    # Whether it has left, or sent its next request, is a matter of that.
                    if self._is_answered:
                        return
                    raise ClientGone("the client left")
            except ClientGone:
                self.client_left = True
                raise
            finally:
                for channel in channels:
                    watch_channel(self._worker, channel.id, None)
        # It had its answer, and its wait for the next request was ended.
        if self._is_answered and not self._connection.unwritten:
            self._connection.is_over = True

    def _answer_now(self, call: CallHandle, waiting: trio.CancelScope) -> bool:
        """Answer with the result of the settled call, while the task of the connection waits on for the next request.

        Return False if that task has to go on: it is to answer, or to write the rest. To wake it and to have it wait again
        costs as much as the rest of a small request.
        """
        state = self._response.state
        if self.when_answered is None:
            return False
        try:
            result = call.value()
        except CallError:
            return False
        event = ResponseEvent.RETURNED_NULL if result is None else ResponseEvent.RETURNED_VALUE
        whole = Whole(self._response.head, b"") if result is None else returned(result)
        # The call holds its result for as long as the task waits, so a large one is for the task.
        if len(whole.body) > _SMALL_BYTES or not state.can(event):
            return False
        if not self._connection.answer_now(whole.plus(*self._common), waiting):
            return False
        state.advance(event)
        self._is_answered = True
        self._deadline.deadline = math.inf
        self.status = whole.head.status
        self._returned()
        if self._connection.unwritten:
            return False
        self._keep_nothing()
        self.when_answered()
        return True

    async def _stream(self, call: CallHandle, raw: bytes | None, request: Channel, response: Channel) -> None:
        """Carry the bodies both ways beside the call."""
        async with open_service_nursery() as nursery:
            self._conversation = nursery.cancel_scope
            nursery.start_soon(self._forward_body, request, raw)
            nursery.start_soon(self._forward_response, response)
            if not self._handler_is_over:
                await call.wait_settled()
                await trio.lowlevel.checkpoint()  # items that came with the result have their turn first
                await self._take_result(call)

    async def _forward_body(self, request: Channel, raw: bytes | None) -> None:
        """Send the request's body into its channel, then watch for the client to leave."""
        try:
            if raw is None:
                await self._forward_chunks(request)
            else:
                await _send_all(request, raw)
            await self._connection.wait_gone()
        except ClientGone as error:
            request.writer.abort(str(error))
        except BrokenBody as error:
            await self._refuse_body(error, request)
            return
        # It may have left because it has the whole response, whose end is not booked yet.
        if self._connection.is_ending:
            await self._wait_ended()
        else:
            self._leave()

    async def _forward_chunks(self, request: Channel) -> None:
        try:
            while (chunk := await self._connection.next_chunk()) is not None:
                # The next read is a checkpoint, so another one for each piece would only cost a turn. Behind the last piece
                # the handler has that turn: a client that ends its side there may still get an answer.
                if not (self._connection.is_within_counted and send_now(request.writer, chunk)):
                    await request.writer.send(chunk)
                self._body_moved()
            await request.writer.aclose()
        # The handler wants no more of it. It is read to its end, so that the connection can serve another request.
        except ChannelBroken:
            while not self._connection.body_is_read and await self._connection.next_chunk() is not None:
                pass

    async def _refuse_body(self, error: BrokenBody, request: Channel) -> None:
        """End a request whose body is broken: with an answer unless the response has begun, and visibly cut if it has."""
        request.writer.abort(str(error))
        state = self._response.state
        if not state.can(ResponseEvent.BODY_BROKEN):
            return  # the response is complete
        state.advance(ResponseEvent.BODY_BROKEN)
        if state.current is ResponseState.FAILED:
            await self._answer(failure(400, "BAD_BODY", f"{error}."))
        else:
            self._truncate(str(error))
        self._done()

    def _body_moved(self) -> None:
        """Count the handler's time from the last bytes that it took, so that a long upload is not late."""
        if self._deadline.deadline != math.inf:
            self._restart_deadline()

    async def _wait_ended(self) -> None:
        """Let the handler and its channel end behind a client that wants no more than the last bytes.

        If those cannot be written, their writer finds that the client is gone.
        """
        await self._connection.stream.wait_taken()
        if self._deadline.deadline == math.inf:
            self._restart_deadline()

    def _restart_deadline(self) -> None:
        self._deadline.deadline = trio.current_time() + self._config.timeout_seconds

    def _leave(self) -> None:
        if self._response_is_over:
            return  # it has all that it asked for, and the handler may end its work
        self.client_left = True
        self._cancel("the client left")

    def _done(self) -> None:
        self._cancel("the response is complete")

    def _cancel(self, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.cancel(reason=reason)

    def _streamed(self) -> None:
        """End the conversation once the handler has ended too. It has as long for that as it had for the head."""
        self._response_is_over = True
        if self._handler_is_over:
            self._done()
        else:
            self._restart_deadline()

    def _returned(self) -> None:
        self._handler_is_over = True
        if self._response_is_over:
            self._done()

    async def _take_result(self, call: CallHandle) -> None:
        """Answer with the result of the settled call, unless the channel was first."""
        state = self._response.state
        try:
            result = call.value()
        except CallError as error:
            if state.can(ResponseEvent.HANDLER_FAILED):
                state.advance(ResponseEvent.HANDLER_FAILED)
                if state.current is ResponseState.FAILED:
                    await self._answer(self._failed(error))
                    self._done()
            self._returned()
            return
        self._returned()
        event = ResponseEvent.RETURNED_NULL if result is None else ResponseEvent.RETURNED_VALUE
        if not state.can(event):
            return  # the channel has answered
        state.advance(event)
        if state.current is ResponseState.COMPLETE:
            await self._answer(Whole(self._response.head, b"") if result is None else returned(result))
            self._done()
        elif state.current is ResponseState.FAILED:
            await self._answer(self._broken("the handler returned nothing, and its response was cut"))
            self._done()

    async def _forward_response(self, response: Channel) -> None:
        """Send the response channel to the client."""
        state = self._response.state
        is_used = False
        try:
            while (items := await _next_items(response)) is not None:
                is_used = True
                if state.is_final:
                    return  # the result has answered
                pieces = []
                began = state.current is ResponseState.STREAMING
                for item in items:
                    if not isinstance(item, str):
                        # Control messages behind the first bytes are known by the state.
                        if state.current is not ResponseState.STREAMING:
                            state.advance(ResponseEvent.FIRST_BYTES)
                        pieces.append(item)
                    elif (problem := self._response.control(item)) is not None:
                        self._warn(f"the handler sent {problem}, which is ignored")
                if pieces and not began:
                    await self._begin()
                await self._connection.send_pieces(pieces)
            began = state.current is ResponseState.STREAMING
            event = ResponseEvent.CHANNEL_CLOSED if is_used else ResponseEvent.CHANNEL_CLOSED_UNUSED
            if not state.can(event):
                return
            state.advance(event)
            if began:
                await self._connection.finish()
                self._streamed()
                return
            if state.current is ResponseState.UNUSED:
                return
            await self._answer(Whole(self._response.head, b""))
            self._streamed()
            return
        except ChannelBroken as error:
            if not state.can(ResponseEvent.CHANNEL_BROKEN):
                return
            state.advance(ResponseEvent.CHANNEL_BROKEN)
            if state.current is ResponseState.RESULT_ONLY:
                return  # the handler's result may still be the answer
            if state.current is ResponseState.FAILED:
                await self._answer(self._broken(f"the response was cut: {error.reason}"))
            else:
                self._truncate(str(error))
        except h11.LocalProtocolError as error:
            self._truncate(f"the body does not fit its content-length: {error}")
        except ClientGone:
            self._leave()
            return
        self._done()

    # --- answers

    async def _begin(self) -> None:
        """Send the head of a streamed response. From here on there is no deadline."""
        self._deadline.deadline = math.inf
        head = self._response.head.plus(*self._common)
        self.status = head.status
        await self._connection.send_head(head, close=not self._connection.body_is_read)

    async def _answer(self, whole: Whole) -> None:
        """Send a complete response."""
        self._deadline.deadline = math.inf
        self.status = whole.head.status
        await self._connection.send_whole(whole.plus(*self._common), close=not self._connection.body_is_read)

    def _truncate(self, cause: str) -> None:
        self.truncated = True
        route = self._match.route
        self._shared.log(logging.INFO, f"{route.name}: the response was cut off: {cause}", route.function_id)
        self._connection.cut()

    def _failed(self, error: CallError | ConnectionFailed) -> Whole:
        return self._logged(500, _code_of(error), _text_of(error))

    def _broken(self, message: str) -> Whole:
        return self._logged(500, "response_broken", message)

    def _logged(self, status: int, code: str, message: str) -> Whole:
        error_id = secrets.token_hex(6)
        self._warn(f"{status} {code}: {message} (error id {error_id})")
        return failure(status, code, message, error_id=error_id)

    def _warn(self, text: str) -> None:
        route = self._match.route
        self._shared.warn(f"{route.name}: {text}", route.function_id)

    # --- before the handler

    async def _collect(self) -> bytes:
        """Read a JSON body. Raises Refused if it is too large or broken."""
        limits = self._config.limits
        body = bytearray()
        try:
            while (chunk := await self._connection.next_chunk()) is not None:
                body += chunk
                if len(body) > limits.json_bytes:
                    text = f"A JSON body may have {limits.json_bytes} bytes at most."
                    raise Refused(failure(413, "BODY_TOO_LARGE", text))
                self._shared.kept.add(len(chunk))
                self._kept_bytes += len(chunk)
                # Many clients could otherwise fill the memory, though each stays within its own bound.
                if not self._shared.kept.has_room(limits.json_total_bytes, self._kept_bytes):
                    text = "The server holds as many JSON bodies as it may. Try again later."
                    busy = failure(503, "TOO_MANY_BODIES", text)
                    raise Refused(busy.plus(("retry-after", "1")))
        except BrokenBody as error:
            raise Refused(failure(400, "BAD_BODY", f"{error}.")) from None
        return bytes(body)

    async def _check(self, function_id: str, given: dict[str, Any]) -> None:
        """Ask the condition. Only `false` is a no. Raises Refused."""
        verdict = await self._ask(function_id, given)
        if verdict is False:
            message = "Request condition not met"
            raise Refused(failure(422, "CONDITION_NOT_MET", message, extra={"skipped": True}))

    async def _pass(self, function_id: str, given: dict[str, Any]) -> None:
        """Pass a middleware function. Raises Refused if it answers itself."""
        was, self._late = self._late, ("MIDDLEWARE_TIMEOUT", f"The middleware {function_id} did not answer")
        answer = await self._ask(function_id, given)
        self._late = was
        match answer:
            case {"action": "continue"}:
                return
            case {"action": "respond"}:
                raise Refused(responded(answer.get("response")))
            case _:
                self._warn(
                    f"the middleware {function_id} answered neither continue nor respond, and the request goes on"
                )

    async def _ask(self, function_id: str, given: dict[str, Any]) -> Any:
        try:
            return await self._worker.trigger(function_id, given, namespace=self._match.route.namespace)
        except (CallError, ConnectionFailed) as error:
            raise Refused(self._failed(error)) from error


async def _next_items(response: Channel) -> list[Buffer | str] | None:
    """Wait for what comes next of the response; None at its clean end."""
    try:
        return await receive_pieces(response.reader)
    except trio.EndOfChannel:
        return None


async def _send_all(channel: Channel, body: bytes) -> None:
    """Send a body that was read before. A handler that wants none of it is not an error."""
    try:
        if body:
            await channel.writer.send(body)
        await channel.writer.aclose()
    except ChannelBroken:
        pass


def _code_of(error: CallError | ConnectionFailed) -> str:
    return error.code if isinstance(error, CallError) else "INTERNAL_ERROR"


def _text_of(error: CallError | ConnectionFailed) -> str:
    return error.message if isinstance(error, CallError) else str(error)
