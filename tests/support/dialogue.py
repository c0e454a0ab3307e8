"""A conversation without a connection: its requests are answered by hand, one message at a time."""

from __future__ import annotations

from typing import Any

import pytest

from pgrepl.errors import ProtocolError
from pgrepl.protocol.conversation import (
    Compute,
    Conversation,
    Exchange,
    PeerCertificate,
    Receive,
    ReceiveByte,
    Send,
    StartTLS,
)


class Dialogue:
    """What a conversation has sent, what it waits for, and in the end its result.

    `certificate` is the one that the server has shown, in DER form, if there is TLS. `computed`
    counts what was left to be computed, which happens at once.
    """

    def __init__(
        self, conversation: Conversation[Any], *, certificate: bytes | None = None
    ) -> None:
        self.sent: list[bytes] = []
        self.computed = 0
        self._certificate = certificate
        self._exchange = Exchange(conversation)
        self._send()

    def _send(self) -> None:
        while isinstance(request := self._exchange.request, Send | Compute | PeerCertificate):
            if isinstance(request, Send):
                self.sent.append(request.data)
                self._exchange.answer(None)
            elif isinstance(request, Compute):
                self.computed += 1
                self._exchange.answer_by(request.call)
            else:
                self._exchange.answer(self._certificate)

    @property
    def ended(self) -> bool:
        """Whether it waits for nothing any more."""
        return self._exchange.request is None

    @property
    def result(self) -> Any:
        """What it returned."""
        assert self.ended, f"the conversation still waits: {self._exchange.request!r}"
        return self._exchange.result

    def receive(self, *messages: bytes) -> Dialogue:
        """Hand it whole messages, each when it waits for one."""
        for message in messages:
            assert isinstance(self._exchange.request, Receive), (
                f"message {message[:1]!r} comes, and nothing waits for it"
            )
            self._exchange.answer((message[:1], message[5:]))
            self._send()
        return self

    def receive_byte(self, byte: bytes) -> Dialogue:
        """Hand it the one byte that it must be waiting for."""
        assert isinstance(self._exchange.request, ReceiveByte)
        self._exchange.answer(byte)
        self._send()
        return self

    def start_tls(self) -> Dialogue:
        """TLS is established, which it must be waiting for."""
        assert isinstance(self._exchange.request, StartTLS)
        self._exchange.answer(None)
        self._send()
        return self


def refused(dialogue: Dialogue, *messages: bytes, kind: type[Exception] = ProtocolError) -> str:
    """What is said to these messages, the last of which must be one too many."""
    dialogue.receive(*messages[:-1])
    with pytest.raises(kind) as caught:
        dialogue.receive(messages[-1])
    assert type(caught.value) is kind
    assert dialogue.ended
    return str(caught.value)
