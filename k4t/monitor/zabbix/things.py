"""What is discovered, which figures each thing has, and what of it alarms: tables. k4t judges itself (docs/monitor.md
“What is checked”, “Thresholds”); Zabbix is told the levels."""

from __future__ import annotations

from k4t.monitor.zabbix import kinds
from k4t.monitor.zabbix.parts import Alarm, Figure, Thing

SAID = Figure("said", "what is wrong", "text")


def level(key: str, name: str) -> Figure:
    return Figure(key, name, "level")


HOSTS = Thing(
    "hosts",
    "host",
    "{#NAME}",
    (
        Figure("reachable", "reachable", "yes-no"),
        level("away", "level of being away"),
        level("disk", "level of its disk"),
        level("docker_disk", "level of Docker's disk"),
        level("memory", "level of its memory"),
        level("cpu", "level of its processors"),
        level("load", "level of its load"),
        level("clock", "level of its clock"),
        SAID,
        Figure("uptime_s", "uptime", "count", "uptime", quiet=False),
        Figure("cpus", "processors"),
        Figure("cpu_percent", "processors busy", "figure", "%", quiet=False),
        Figure("load1", "load, 1 min", "figure", quiet=False),
        Figure("load15", "load, 15 min", "figure", quiet=False),
        Figure("memory_bytes", "memory", "count", "B"),
        Figure("memory_available_bytes", "memory available", "count", "B", quiet=False),
        Figure("memory_percent", "memory not available", "figure", "%", quiet=False),
        Figure("clock_skew_s", "clock against ours", "figure", "s", quiet=False),
    ),
    (
        Alarm("away", "is gone", "Off, cut off, or it can't be asked. What is on it is not told by itself.",
              unknown="says what can't be believed"),
        Alarm("disk", "is short of disk", "Space or inodes of / or /var/lib/k4t.", unless="away", scope="capacity"),
        Alarm("docker_disk", "is short of disk for Docker", "k4t prune removes old images.", unless="away",
              scope="capacity"),
        Alarm("memory", "is short of memory", "What is not available to programs.", unless="away", scope="capacity"),
        Alarm("cpu", "is busy", "Its processors, since the check before.", unless="away", scope="performance"),
        Alarm("load", "is loaded", "The last minute's load for each processor.", unless="away", scope="performance"),
        Alarm("clock", "keeps another time", "Its clock against the one of the machine that looks.", unless="away",
              scope="notice"),
    ),
    (
        ("processors", ("cpu_percent",)),
        ("load", ("load1", "load15")),
        ("memory", ("memory_percent",)),
    ),
    {"name": "{#HOST}", "kind": "{#KIND}"},
    kinds.HOST,
    chosen=True,
)  # fmt: skip

DISKS = Thing(
    "disks",
    "disk",
    "{#NAME}",
    (
        Figure("size_bytes", "size", "count", "B"),
        Figure("used_bytes", "used", "count", "B"),
        Figure("available_bytes", "left", "count", "B"),
        Figure("space_percent", "space used", "figure", "%"),
        Figure("inodes_percent", "inodes used", "figure", "%"),
    ),
    graphs=(("used", ("space_percent", "inodes_percent")),),
    tags={"name": "{#HOST}"},
    chosen=True,
)

NODES = Thing(
    "nodes",
    "node",
    "Docker on {#KEY}",
    (
        Figure("up", "answers", "yes-no"),
        level("docker", "level of the Engine"),
        level("stranger", "level of strangers"),
        SAID,
        Figure("containers", "containers"),
        Figure("running", "containers running"),
        Figure("strangers", "containers of others"),
        Figure("images_bytes", "images (when the disk is short)", "count", "B"),
    ),
    (
        Alarm("docker", "is down", "The Engine doesn't run, or doesn't answer."),
        Alarm("stranger", "has a container in the way", "A container that is not k4t's has a name of ours, or a port "
              "that an app needs.", unless="docker", scope="notice"),
    ),
    (("containers", ("containers", "running", "strangers")),),
    kinds=kinds.NODE,
)  # fmt: skip

APPS = Thing(
    "apps",
    "app",
    "app {#KEY}",
    (
        level("replicas", "level of its replicas"),
        level("unpublished", "level of its publication"),
        level("held", "level of being held"),
        SAID,
        Figure("desired", "replicas desired"),
        Figure("running", "replicas running"),
        Figure("healthy", "replicas healthy"),
        Figure("published", "replicas published"),
        Figure("reached", "replicas reached from a gateway"),
    ),
    (
        Alarm("replicas", "is short of replicas", "Missing, stopped, restarting, unhealthy, or not reached from where "
              "the gateway stands.", worst="has no replica that is well"),
        Alarm("unpublished", "is not published", "It is well, and a group that should send to it doesn't.",
              unless="replicas"),
        Alarm("held", "is held", "Its spec did not get healthy, and is not tried again.", scope="notice"),
    ),
    (("replicas", ("desired", "running", "healthy", "published", "reached")),),
    kinds=kinds.APP,
    chosen=True,
)  # fmt: skip


def member(of: str, singular: str, title: str) -> Thing:
    return Thing(
        of,
        singular,
        f"{title} {{#KEY}}",
        (
            Figure("reachable", "reachable", "yes-no"),
            Figure("serving", "serving", "yes-no"),
            level("away", "level of being away"),
            level("stopped", "level of being stopped"),
            level("step", "level of being out of step"),
            level("rejected", "level of its configuration"),
            level("withdrawn", "level of withdrawals"),
            SAID,
            Figure("seq", "publication"),
            Figure("endpoints", "endpoints"),
            Figure("withdrawn_endpoints", "endpoints withdrawn"),
        ),
        (
            Alarm("away", "is away", "Its host answers, and it can't be asked."),
            Alarm("stopped", "does not serve", "Nobody takes connections there.", unless="away"),
            Alarm("step", "is out of step", "It holds something else than its group, or serves something else than it "
                  "was told.", unless="stopped"),
            Alarm("rejected", "refuses its configuration", "Its own checker does; the last good one serves.",
                  unless="stopped"),
            Alarm("withdrawn", "has endpoints taken out", "Somebody, or the monitor, took an endpoint out.",
                  unless="away", scope="notice"),
        ),
        (("endpoints", ("endpoints", "withdrawn_endpoints")),),
        kinds=kinds.MEMBER,
    )  # fmt: skip


GATEWAYS = member("gateways", "gateway", "gateway")
DNS = member("dns", "dns", "DNS")

BACKUPS = Thing(
    "backups",
    "backup",
    "backup {#KEY}",
    (
        level("age", "level of its age"),
        level("refused", "level of what it says"),
        SAID,
        Figure("age_s", "since the newest copy was confirmed", "count", "s", quiet=False),
        Figure("every_s", "one is due every", "count", "s"),
    ),
    (
        Alarm("refused", "is not genuine", "What it says of its copies is altered, or signed by nobody that may.",
              scope="security"),
        Alarm("age", "is overdue", "By its own period. Off on purpose, the master makes none, and nothing is said.",
              unless="refused", unknown="can't be read"),
    ),
    (("age", ("age_s", "every_s")),),
    kinds=kinds.BACKUP,
)  # fmt: skip

CERTIFICATES = Thing(
    "certificates",
    "certificate",
    "certificate {#KEY}",
    (
        level("expiry", "level of what is left"),
        SAID,
        Figure("expires", "ends", "count", "unixtime"),
        Figure("left_s", "left", "figure", "s", quiet=False),
    ),
    (Alarm("expiry", "ends soon", "Of what gateways serve under this name, and of the tree's, what ends first."),),
    (("left", ("left_s",)),),
    kinds=kinds.CERTIFICATE,
)

THINGS = (HOSTS, DISKS, NODES, APPS, GATEWAYS, DNS, BACKUPS, CERTIFICATES)

CLUSTER = (
    Figure("checked_at", "checked at", "count", "unixtime", quiet=False),
    Figure("took_s", "a check takes", "figure", "s", quiet=False),
    level("level", "level"),
    Figure("critical", "raised: critical"),
    Figure("warning", "raised: warnings"),
    Figure("unknown", "raised: unknown"),
    Figure("said", "what is wrong", "text"),
    Figure("off_on_purpose", "master is off on purpose", "yes-no"),
    Figure("serial", "serial"),
    Figure("open_transactions", "publications that are not over"),
    level("cut_off", "level of being cut off"),
    level("clock", "level of our own clock"),
    level("lock", "level of the lock"),
    level("transaction", "level of publications that are not over"),
    Figure("cluster_said", "what is wrong with the cluster", "text"),
    level("other", "level of everything else"),
    Figure("other_said", "everything else", "text"),
)
CUT_OFF = Alarm(
    "cut_off", "no host answers", "Nothing answers: the machine that looks is cut off, or all hosts are off.",
    critical="DISASTER",
)  # fmt: skip
CLUSTER_ALARMS = (
    Alarm("clock", "our own clock is wrong", "All hosts agree, and the machine that looks doesn't.", scope="notice"),
    Alarm("lock", "a run holds the lock for long", "Is it waiting for an answer? No lock is ever stale.",
          warning="AVERAGE", scope="notice"),
    Alarm("transaction", "a publication is not over", "k4t txn list says more, and k4t apply ends it.",
          warning="AVERAGE"),
)  # fmt: skip
OTHER = Alarm(
    "other", "something else is raised", "A kind of trouble that is newer than this template: export it anew."
)
