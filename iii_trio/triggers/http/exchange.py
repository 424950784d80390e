"""One request and its response: middleware, body, condition, handler, and two channels between client and handler.

The order of work is iii's: route, global middleware, channels, body, condition, route middleware, handler. The request's
body flows into one channel while the handler runs, and the handler's `response` channel flows to the client. Both wait for
each other by the channels' own bounds, so neither a slow client nor a slow handler makes the engine keep more.
"""

from __future__ import annotations

import logging
import math
import secrets
from typing import Any, Final, final

import h11
import trio

from ...errors import CallError, ChannelBroken, ConnectionFailed
from ...nursery import open_service_nursery
from ...worker import Channel, Worker
from .connection import ClientGone, HttpConnection
from .request import handler_input, is_json, middleware_input, parse_body
from .response import Response, ResponseEvent, ResponseState, Whole, failure, responded, returned
from .routes import Match
from .settings import HttpConfig

LOGGER: Final = logging.getLogger("iii_trio.http")


class Refused(Exception):
    """The request is answered without its handler."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole


@final
class Exchange:
    """One request that has a route."""

    def __init__(
        self,
        worker: Worker,
        connection: HttpConnection,
        config: HttpConfig,
        match: Match,
        method: str,
        query: dict[str, str | list[str]],
        headers: dict[str, str],
        common: list[tuple[str, str]],
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._config = config
        self._match = match
        self._method = method
        self._query = query
        self._headers = headers
        self._common = common
        self._response = Response()
        self._conversation = trio.CancelScope()
        self._deadline = trio.CancelScope()
        self._late = "TIMEOUT", "The handler did not answer"
        """The code and text for a deadline that passes now."""
        self._handler_is_over = False
        self._response_is_over = False
        self.status = 0
        """The status that was sent, or 0 if none was."""
        self.truncated = False
        """Whether the client was shown that the body is not whole."""
        self.client_left = False

    async def run(self) -> None:
        """Serve the request to its end. Raises ClientGone. If cancelled: the handler is cancelled, the client cut."""
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._config.timeout_seconds) as self._deadline:
                await self._serve()
            if self._deadline.cancelled_caught and not self._response_is_over:
                code, text = self._late
                timeout = self._config.timeout_seconds
                status = 408 if code == "REQUEST_TIMEOUT" else 504
                await self._answer(failure(status, code, f"{text} within {timeout:g} s."))
        except Refused as refusal:
            await self._answer(refusal.whole)

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
            body, body_error = parse_body(raw)
        given = handler_input(self._match, self._method, self._query, self._headers, body, body_error)
        if route.condition is not None:
            await self._check(route.condition, given)
        for function_id in route.middleware:
            await self._pass(function_id, passing)
        async with (
            self._worker.create_channel(expires_after_seconds=None) as request,
            self._worker.create_channel(expires_after_seconds=None) as response,
        ):
            try:
                given |= {"request_body": request.reader_ref, "response": response.writer_ref}
                await self._converse(given, raw, request, response)
            finally:
                # Whatever was not used is of no use to anybody any more. An end that was attached is told the reason.
                request.reader.cancel("the request is over")
                response.reader.cancel("the response is over")

    async def _converse(self, given: dict[str, Any], raw: bytes | None, request: Channel, response: Channel) -> None:
        """Run the handler between the two channels until the response is complete."""
        async with open_service_nursery() as nursery:
            self._conversation = nursery.cancel_scope
            nursery.start_soon(self._forward_body, request, raw)
            nursery.start_soon(self._call, given)
            nursery.start_soon(self._forward_response, response)
        if self.client_left:
            raise ClientGone("the client left")

    async def _forward_body(self, request: Channel, raw: bytes | None) -> None:
        """Send the request's body into its channel, then watch for the client to leave."""
        try:
            if raw is not None:
                if raw:
                    await request.writer.send(raw)
            else:
                while (chunk := await self._connection.next_chunk()) is not None:
                    await request.writer.send(chunk)
                    self._body_moved()
            await request.writer.aclose()
        except ChannelBroken:
            await self._discard()  # the handler wants no more of it
        except ClientGone as error:
            request.writer.abort(str(error))
            self._leave()
            return
        await self._connection.wait_gone()
        self._leave()

    async def _discard(self) -> None:
        while not self._connection.body_is_read and await self._connection.next_chunk() is not None:
            pass

    def _body_moved(self) -> None:
        """Count the handler's time from the last bytes that it took, so that a long upload is not late."""
        if self._deadline.deadline != math.inf:
            self._deadline.deadline = trio.current_time() + self._config.timeout_seconds

    def _leave(self) -> None:
        if self._response_is_over:
            return  # it has all that it asked for, and the handler may end its work
        self.client_left = True
        self._conversation.cancel(reason="the client left")

    def _done(self) -> None:
        self._conversation.cancel(reason="the response is complete")

    def _streamed(self) -> None:
        """End the conversation once the handler has ended too. It has as long for that as it had for the head."""
        self._response_is_over = True
        if self._handler_is_over:
            self._done()
        else:
            self._deadline.deadline = trio.current_time() + self._config.timeout_seconds

    def _returned(self) -> None:
        self._handler_is_over = True
        if self._response_is_over:
            self._done()

    async def _call(self, given: dict[str, Any]) -> None:
        """Call the handler. Its result is the response, unless its channel was first."""
        route, state = self._match.route, self._response.state
        try:
            result = await self._worker.trigger(
                route.function_id,
                given,
                namespace=route.namespace,
                metadata=route.metadata,
                traceparent=self._headers.get("traceparent"),
                baggage=self._headers.get("baggage"),
            )
            await trio.lowlevel.checkpoint()  # items that came with the result have their turn first
        except (CallError, ConnectionFailed) as error:
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
            async for item in response.reader:
                is_used = True
                if state.is_final:
                    return  # the result has answered
                if isinstance(item, str):
                    if (problem := self._response.control(item)) is not None:
                        LOGGER.warning("%s: the handler sent %s, which is ignored", self._match.route.name, problem)
                    continue
                if state.current is not ResponseState.STREAMING:
                    state.advance(ResponseEvent.FIRST_BYTES)
                    await self._begin()
                await self._connection.send_chunk(item)
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
        head = self._response.head
        self.status = head.status
        await self._connection.send_head(
            type(head)(head.status, (*head.headers, *self._common)), close=not self._connection.body_is_read
        )

    async def _answer(self, whole: Whole) -> None:
        """Send a complete response."""
        self._deadline.deadline = math.inf
        head = whole.head
        self.status = head.status
        await self._connection.send_whole(
            Whole(type(head)(head.status, (*head.headers, *self._common)), whole.body),
            close=not self._connection.body_is_read,
        )

    def _truncate(self, cause: str) -> None:
        self.truncated = True
        LOGGER.info("%s: the response was cut off: %s", self._match.route.name, cause)
        self._connection.cut()

    def _failed(self, error: CallError | ConnectionFailed) -> Whole:
        code = error.code if isinstance(error, CallError) else "INTERNAL_ERROR"
        message = error.message if isinstance(error, CallError) else str(error)
        return self._logged(500, code, message)

    def _broken(self, message: str) -> Whole:
        return self._logged(500, "response_broken", message)

    def _logged(self, status: int, code: str, message: str) -> Whole:
        error_id = secrets.token_hex(6)
        LOGGER.warning("%s: %d %s: %s (error id %s)", self._match.route.name, status, code, message, error_id)
        return failure(status, code, message, error_id=error_id)

    # --- before the handler

    async def _collect(self) -> bytes:
        """Read a JSON body. Raises Refused if it is too large."""
        limit = self._config.limits.json_bytes
        body = bytearray()
        while (chunk := await self._connection.next_chunk()) is not None:
            body += chunk
            if len(body) > limit:
                raise Refused(failure(413, "BODY_TOO_LARGE", f"A JSON body may have {limit} bytes at most."))
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
                LOGGER.warning(
                    "%s: the middleware %s answered neither continue nor respond, and the request goes on",
                    self._match.route.name,
                    function_id,
                )

    async def _ask(self, function_id: str, given: dict[str, Any]) -> Any:
        try:
            return await self._worker.trigger(function_id, given, namespace=self._match.route.namespace)
        except (CallError, ConnectionFailed) as error:
            raise Refused(self._failed(error)) from error
