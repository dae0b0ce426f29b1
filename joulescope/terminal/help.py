"""The help overlay."""

from __future__ import annotations

from rich.text import Text

from joulescope.terminal.glyphs import Look

_KEYS = (
    ("1 2 3 4 5, Tab", "running, finished, engines, GPUs, tasks"),
    ("s, S", "sort by the next column, by the one before"),
    ("j w o a t n", "by J, W, J/output, age, output, engine; again: reversed"),
    ("r", "reverse the order"),
    ("/", "filter by text: id, engine, model, adapter, task, phase or end"),
    ("e", "one engine only, the next one, all"),
    ("Esc", "no filter"),
    ("p, Space", "pause, go on"),
    ("+ -", "read more often, less often"),
    ("arrows, PgUp, PgDn", "scroll"),
    ("q, Ctrl-C", "quit"),
)
_WORDS = (
    ("J", "attributed joules, a share of what was measured"),
    ("W", "watts of a request over 5 s; engines and GPUs over 10 s"),
    ("batch, next J", "tokens of the last step; joules of one more decode token"),
    ("ever", "since the sidecar met the engine"),
    ("index", "cost over what the same work should cost, of a minute"),
    ("attrib, idle", "shares of the GPU's joules over 10 s"),
    ("ovhd, unattr", "overhead (start-up, recompute); what is nobody's"),
    ("pre", "preemptions"),
)


def help_lines(look: Look, height: int) -> list[Text]:
    """Keys first, then words, as far as ``height`` goes."""
    lines = [Text("joulescope top: keys", "bold")]
    lines += [_line(key, text) for key, text in _KEYS]
    lines += [Text(), Text("words", "bold")]
    lines += [_line(word, text) for word, text in _WORDS]
    if height < len(lines) + 1:
        lines = [line for line in lines if line.plain]
    return [Text.assemble(line) if look.unicode else Text(look.text(line.plain)) for line in lines]


def _line(key: str, text: str) -> Text:
    return Text.assemble((f"  {key:<20}", "cyan"), text)
