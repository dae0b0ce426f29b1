"""The settings: one table, from which flags, environment variables and the YAML file come.

A setting has one name. ``sample_hz`` is the flag ``--sample-hz``, the variable
``JOULESCOPE_SAMPLE_HZ`` and the YAML key ``sample_hz``; the earlier of these wins, and the default
comes last. Whatever the place, a value is read from its text by the same parser, so that ``0660``
means the same everywhere.

Why port 5685: it spells JOUL on a telephone's keys. It lies outside 9100..9999, which the exporters of
the Prometheus project share among themselves (9400, for one, is NVIDIA's DCGM exporter, which runs on
the same hosts), below Linux's ephemeral ports (32768 and up), and Debian's ``/etc/services`` has no
service there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joulescope.config.diagnosis import DiagnosisSettings
from joulescope.config.kinds import (
    Calibration,
    Choice,
    FilePath,
    Folder,
    Gpus,
    Kind,
    Listen,
    Mode,
    Number,
    OrNone,
    SocketPath,
    Whole,
    factor_of,
    setting,
)
from joulescope.config.links import HostPort, Name
from joulescope.config.surroundings import (
    Currency,
    HeaderName,
    Intensity,
    OptionalNumber,
    Pointer,
    SecretPlace,
    Servers,
)

ENVIRONMENT_PREFIX = "JOULESCOPE_"
CONFIG_VARIABLE = "JOULESCOPE_CONFIG"


@dataclass(frozen=True, slots=True)
class Settings(DiagnosisSettings):
    """What the sidecar needs to know. Every field is a setting; its help stands beside it.

    Settings of labels, of the ledger and of the diagnosis stand in classes of their own, which it inherits.
    """

    socket: str = setting(
        "/run/joulescope/joulescope.sock",
        SocketPath(),
        "Unix socket on which the hook in vLLM's processes reports. The sidecar creates and owns it.",
    )
    socket_mode: int = setting(
        0o660,
        Mode(),
        "Permissions of the socket, octal. vLLM's user needs read and write, by a common group for instance.",
    )
    listen: str = setting(
        "0.0.0.0:5685",
        Listen(),
        "Where /metrics and the health pages are served. Port 0 takes a free one.",
    )
    web_config_file: str | None = setting(
        None,
        OrNone(FilePath()),
        "YAML file with TLS, client certificates and passwords of these pages, in the format of Prometheus' "
        "exporters. It is read anew when it changes.",
    )
    request_ids: str = setting(
        "auto",
        Choice(("auto", "shown", "hidden")),
        "Whether pages show ids, traces and tenants of single requests. auto: to those who showed a password "
        "or a client certificate, and to all where the pages are served to this machine alone. Exemplars of "
        "/metrics, which name sampled traces, are left out with hidden only.",
    )
    gpus: str = setting(
        "engine",
        Gpus(),
        "Which GPUs to read: those that engines report (engine), all, or UUIDs separated by commas.",
    )
    sensor: str = setting(
        "nvml",
        Choice(("nvml", "amd", "engine", "none")),
        "What reads the GPUs: NVIDIA's library (nvml) or AMD's (amd). NVIDIA GPUs that are not visible here "
        "are read inside their engine's container; with engine all are. With none, requests are followed "
        "and no joules are measured.",
    )
    mig: str = setting(
        "refuse",
        Choice(("refuse", "gpm")),
        "Whether joules of an NVIDIA GPU that is cut into MIG instances, which have no meter, are split "
        "among them by performance counters (gpm). Such joules are an estimate, and say so.",
    )
    calibration: tuple[tuple[str, float], ...] = setting(
        (),
        Calibration(0.5, 2.0),  # cards are off by about 5 %: anything near these is a mistake
        "True joules for each joule that a GPU shows, by GPU: UUID=FACTOR separated by commas, and a factor "
        "alone for all others. Its energy counter and power readings are multiplied by it.",
    )
    sample_hz: float = setting(
        20.0,
        Number(1.0, 1000.0, "polls a second"),
        "Polls of every GPU a second. The driver's energy counter ticks about ten times a second.",
    )
    power_sample_hz: float = setting(
        100.0,
        Number(0.1, 1000.0, "polls a second"),
        "Polls a second while a GPU without an energy counter shows the power of its last 10 ms (Pascal, and "
        "Volta behind a driver that hides the counter); never fewer than sample_hz.",
    )
    window_seconds: float = setting(
        0.5,
        Number(0.05, 60.0, "seconds"),
        "Length of the interval whose measured joules are divided at once, seconds.",
    )
    max_lag_seconds: float = setting(
        10.0,
        Number(0.1, 3600.0, "seconds"),
        "How long an interval waits for late records before it is accounted without them, seconds.",
    )
    request_log: str | None = setting(
        None,
        OrNone(FilePath(dash=True)),
        "File to which every finished request is appended as a line of JSON; - for standard output.",
    )
    otlp_phases: str = setting(
        "spans",
        Choice(("spans", "events", "none")),
        "How OTLP shows the phases of a request (queue, prefill, decode, preempted): as child spans of its "
        "span, as events of it, or not at all.",
    )
    record: str | None = setting(
        None,
        OrNone(FilePath()),
        "Trace file to write beside serving; a name in .gz or .zst is compressed.",
    )
    host: str = setting(
        "auto",
        Choice(("auto", "off")),
        "Whether CPU packages and DRAM are measured too. With auto they are where their counters can be "
        "read; their joules are figures of their own and never added to those of GPUs.",
    )
    host_sysfs: str = setting(
        "/sys",
        Folder(),
        "Where the host's sysfs is. In a container, whose own hides energy counters, mount the host's "
        "/sys/devices/virtual/powercap under another folder and name that folder here.",
    )
    recompute_to: str = setting(
        "overhead",
        Choice(("overhead", "request")),
        "Who pays for tokens computed again after a preemption: the system, or the request itself.",
    )
    rejected_to: str = setting(
        "request",
        Choice(("request", "overhead")),
        "Who pays for drafted tokens that were not accepted. Counted as wasted either way.",
    )
    dummy_to: str = setting(
        "overhead",
        Choice(("overhead", "request")),
        "Who pays for empty data-parallel steps: the system, or the requests that ran in the same interval.",
    )
    idle_to: str = setting(
        "idle",
        Choice(("idle", "request")),
        "Who pays for idle time: nobody, or the requests that ran in the same interval.",
    )
    lost_to: str = setting(
        "unattributed",
        Choice(("unattributed", "request")),
        "Who pays for time of which records were lost: nobody, or the requests known of the same interval.",
    )
    max_open_requests: int = setting(
        65536,
        Whole(1, 100_000_000, "requests"),
        "Requests followed at once; beyond it the oldest is given up and counted.",
    )
    baseline_dir: str | None = setting(
        None,
        OrNone(FilePath()),
        "Folder of baselines: pinned ones are read from it, learned ones are written to it. Without it a "
        "learned baseline lasts as long as the sidecar.",
    )
    baseline_learn_seconds: float = setting(
        1800.0,
        Number(0.0, 1e7, "seconds"),
        "Busy time of an engine in which a baseline of its work is learned where none is kept; 0: never.",
    )
    pue: float | None = setting(
        None,
        OptionalNumber(
            Number(1.0, 5.0, "times the energy of the IT equipment"),
            "; that equipment is in it, so 1 is the least, and 1.1 to 1.6 is usual",
        ),
        "Power usage effectiveness of the facility: its energy per energy of its IT equipment. Exported "
        "beside the joules, never in them.",
    )
    carbon_intensity: float | str | None = setting(
        None,
        Intensity(),
        "Carbon intensity of the grid in gCO2e/kWh: a constant, or the URL or file where it is kept up to "
        "date. Exported beside the joules, never in them.",
    )
    carbon_field: str = setting(
        "/carbonIntensity",
        Pointer(),
        "JSON pointer to the intensity, where its URL or file holds JSON and not just a number.",
    )
    carbon_refresh_seconds: float = setting(
        300.0,
        Number(1.0, 86400.0, "seconds"),
        "Pause between two looks at the URL or file of the carbon intensity, seconds.",
    )
    carbon_max_age_seconds: float = setting(
        7200.0,
        Number(1.0, 604800.0, "seconds"),
        "A carbon intensity that was not found for longer, or whose file was not changed for longer, is not "
        "shown any more, seconds.",
    )
    carbon_header: str = setting(
        "Authorization", HeaderName(), "HTTP header that takes the token to the URL of the carbon intensity."
    )
    carbon_token: str | None = setting(
        None,
        SecretPlace(),
        "Where the whole value of that header is: a variable, or a file that is read anew each time.",
    )
    electricity_price: float | None = setting(
        None,
        OptionalNumber(Number(0.0, 100_000.0, "units of the currency per kWh")),
        "Price of electricity per kWh, in the currency. Exported beside the joules, never in them.",
    )
    currency: str | None = setting(
        None, OrNone(Currency()), "Currency of the price, as ISO 4217 abbreviates it."
    )
    scrape: tuple[str, ...] = setting(
        (),
        Servers(16),  # each is a label value, and a thread
        "Pages of metrics of vLLM, SGLang or TGI servers that have no hook: figures of a whole run beside "
        "the joules, none by request. /metrics is meant where a URL has no path.",
    )
    scrape_seconds: float = setting(
        5.0, Number(1.0, 300.0, "seconds"), "Time from one look at such a page to the next, seconds."
    )
    answer_socket: str | None = setting(
        None,
        OrNone(SocketPath()),
        "Unix socket on which the figures of single requests are served, to the middleware in vLLM and to "
        "whoever may open it: with the permissions of socket_mode, answers.sock beside the other socket for "
        "instance.",
    )
    request_api_token: str | None = setting(
        None,
        SecretPlace(),
        "Where the token is that opens /v1/requests at the address of listen: a variable, or a file that is "
        "read anew. Without one, the figures of single requests are not served there.",
    )
    request_api_seconds: float = setting(
        900.0,
        Number(1.0, 86400.0, "seconds"),
        "How long a finished request can be asked for, seconds; the bounds on their number and size may end "
        "it sooner.",
    )
    request_api_count: int = setting(
        20_000, Whole(1, 1_000_000, "requests"), "Finished requests that can be asked for at most."
    )
    request_api_mebibytes: int = setting(
        64, Whole(1, 4096, "MiB"), "Memory that finished requests may take which can be asked for, MiB."
    )
    link_listen: str | None = setting(
        None,
        OrNone(Listen()),
        "Where relays on other nodes connect, for an engine that is spread over several; 0.0.0.0:5686 for "
        "instance. Always behind TLS with certificates of both ends.",
    )
    link_connect: str | None = setting(
        None, OrNone(HostPort()), "Of a relay: host and port of the head's sidecar, its link_listen."
    )
    link_cert_file: str | None = setting(
        None, OrNone(FilePath()), "Certificate that this end of a link shows, PEM. Read anew on change."
    )
    link_key_file: str | None = setting(None, OrNone(FilePath()), "Its private key, PEM, unencrypted.")
    link_ca_file: str | None = setting(
        None,
        OrNone(FilePath()),
        "Certificate of the authority that signs the other ends of links, PEM. Whoever has a certificate of "
        "it is let in: it is to be one for these links alone.",
    )
    link_server_name: str | None = setting(
        None,
        OrNone(Name()),
        "Of a relay: the name that the head's certificate must have; none: the host of link_connect.",
    )
    link_node: str | None = setting(
        None,
        OrNone(Name()),
        "Of a relay: what this node is called in the head's figures; none: its host name, which in a pod is "
        "the pod's.",
    )
    log_level: str = setting(
        "info", Choice(("debug", "info", "warning", "error")), "Least severe message that is logged."
    )
    log_format: str = setting(
        "text", Choice(("text", "json")), "One line of text or one JSON object for each message."
    )

    @property
    def listen_host(self) -> str:
        """Host part of ``listen``, without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        """Port part of ``listen``; 0 asks for a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def gpu_uuids(self) -> frozenset[str] | None:
        """The GPUs named one by one, or ``None`` if ``gpus`` is ``engine`` or ``all``."""
        return None if self.gpus in ("engine", "all") else frozenset(self.gpus.split(","))

    def calibration_factor(self, gpu: str) -> float:
        """True joules for each joule that this GPU shows."""
        return factor_of(gpu, self.calibration)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table and its names in all three places."""

    name: str
    default: Any
    kind: Kind[Any]
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    def text(self, value: Any) -> str:
        """The value as it would be written on a command line."""
        return self.kind.text(value)


def _in_order() -> tuple[dataclasses.Field[Any], ...]:
    """Those of :class:`Settings` itself, then those that it inherits."""
    fields, inherited = dataclasses.fields(Settings), len(dataclasses.fields(DiagnosisSettings))
    return fields[inherited:] + fields[:inherited]


TABLE: Mapping[str, Setting] = {
    field.name: Setting(field.name, field.default, field.metadata["kind"], field.metadata["help"])
    for field in _in_order()
}
"""Every setting by name, in the order in which pages list them."""
