"""The live view in a terminal: ``joulescope top`` and ``joulescope demo`` draw it.

``source`` reads a sidecar, ``fetcher`` does so in the background, ``history`` keeps what rates and sparklines
need, ``state`` says what a key does, ``view`` draws a frame, ``painter`` sends what changed of it, ``tty``
holds the terminal, and ``loop`` ties them together. See ``docs/decisions/0025-a-terminal-view-on-rich.md``.
"""
