"""What the two ends of a link say: of the hook's records a few, and four of their own.

The relay begins with :class:`LinkHello`. The head asks for the time by :class:`LinkPing` again and again, the
relay answers each by :class:`LinkPong`, and when the head knows the relay's clock it says
:class:`LinkWelcome`; then records of workers and GPUs follow, each with the ``session`` that it belongs to.
"""

from __future__ import annotations

from joulescope.hook.wire import Bye, Gpu, GpuStatus, Hello, Record, Sample

LINK_PROTOCOL = 1
MAX_LINK_FRAME_BYTES = 256 * 1024
MAX_NODE_CHARACTERS = 64


class LinkHello(Record, tag="link_hello"):
    """First record of a link, from the relay."""

    node: str
    protocol: int = LINK_PROTOCOL
    version: str = ""


class LinkPing(Record, tag="link_ping"):
    """From the head: what time is it?"""

    number: int
    time_ns: int


class LinkPong(Record, tag="link_pong"):
    """The relay's answer: when it heard the question, and when it answers, by its own CLOCK_MONOTONIC."""

    number: int
    heard_ns: int
    answered_ns: int


class LinkWelcome(Record, tag="link_welcome"):
    """From the head: your clock is known, go on."""

    protocol: int = LINK_PROTOCOL


FromRelay = LinkHello | LinkPong | Hello | Gpu | Sample | GpuStatus | Bye
FromHead = LinkPing | LinkWelcome
