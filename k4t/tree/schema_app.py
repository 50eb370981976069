"""The table: app.xml."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.schema_publish import RECORD, ROUTE
from k4t.tree.schema_shared import args, secret_env
from k4t.tree.table import attribute, element

IMAGE = element(
    "image",
    "The image: a reference, or an archive of the app's directory and the name to give it.",
    attribute(
        "archive", v.RELATIVE, "A file as `docker save` writes it, in the app's directory: no registry is needed."
    ),
    attribute("pull", v.choice("missing", "always", "never"), "When a node pulls it.", "missing"),
    text=v.IMAGE,
    text_required=True,
    required=True,
)
ENTRYPOINT = element("entrypoint", "Instead of the image's own.", args("One argument."))
COMMAND = element("command", "Instead of the image's own.", args("One argument."))

CONTAINER = element(
    "container",
    "How the container runs.",
    attribute("user", v.USER, "Instead of the image's own."),
    attribute("workdir", v.ABSOLUTE, "Instead of the image's own."),
    attribute(
        "restart", v.choice("no", "on-failure", "unless-stopped"), "What Docker does when it ends.", "unless-stopped"
    ),
    attribute("read-only", v.BOOLEAN, "The root file system can't be written.", "false"),
    attribute("init", v.BOOLEAN, "A small init is process 1.", "false"),
    attribute("cap-add", v.CAPABILITIES, "Capabilities added, separated by spaces or commas."),
    attribute("cap-drop", v.CAPABILITIES, "Capabilities taken away, separated by spaces or commas."),
)

NETWORK = element(
    "network",
    "Which network it lives in.",
    attribute(
        "mode",
        v.choice("host", "bridge", "macvlan", "ipvlan", "none"),
        "`host` is no virtual network at all; with `macvlan` and `ipvlan` it has an address of its own.",
        "host",
    ),
    attribute("resolvers", v.RESOLVERS, "DNS servers, separated by spaces or commas."),
    attribute("search", v.SEARCH, "Search domains, separated by spaces or commas."),
)

PORT = element(
    "port",
    "A port it listens on.",
    attribute("name", v.NAMED, "The port's name.", "main"),
    attribute("container", v.PORT, "Where it listens by itself."),
    attribute(
        "host",
        v.PORT_OR_AUTO,
        "Where `PORT` tells it to listen; in mode `bridge` the port on the node's address.",
    ),
    attribute("protocol", v.choice("tcp", "udp"), "The protocol.", "tcp"),
    many=True,
    key="name",
)

LABEL = element(
    "label",
    "A label of the container; `io.k4t.*` is k4t's own.",
    attribute("name", v.KEY, "Its name.", required=True),
    text=v.FREE,
    many=True,
    key="name",
)

FILE = element(
    "file",
    "A file put into the container.",
    attribute("source", v.RELATIVE, "A file of the app's directory; or `secret`."),
    attribute("secret", v.NAMED, "A secret; or `source`.", refers="secrets"),
    attribute("target", v.ABSOLUTE, "Its path in the container.", required=True),
    attribute("mode", v.MODE, "Its mode; without it 0444, and 0400 for a secret."),
    attribute("owner", v.USER, "Its owner."),
    attribute("expand", v.BOOLEAN, "`${name}` in its content is replaced.", "false"),
    attribute("on-change", v.ON_CHANGE, "What a new content does: `replace`, `restart` or a signal.", "replace"),
    many=True,
    key="target",
)

VOLUME = element(
    "volume",
    "A directory that outlives the container, or one in memory.",
    attribute("source", v.VOLUME_SOURCE, "A path of the node, a volume's name, or `tmpfs:SIZE`.", required=True),
    attribute("target", v.ABSOLUTE, "Its path in the container.", required=True),
    attribute("scope", v.choice("node", "shared"), "`node` binds the replica to the node that holds its data.", "node"),
    attribute("owner", v.USER, "The owner a new directory gets."),
    attribute("read-only", v.BOOLEAN, "The container can't write to it.", "false"),
    attribute("shared-writers", v.BOOLEAN, "Several containers may write to it at once.", "false"),
    many=True,
    key="target",
)

RESOURCES = element(
    "resources",
    "Limits; memory is also what placement counts.",
    attribute("cpus", v.DECIMAL, "CPUs at most."),
    attribute("memory", v.SOME_SIZE, "Memory at most; swap equals it."),
    attribute("gpus", v.GPUS, "`all`, a number, or device ids."),
    attribute("shm", v.SOME_SIZE, "The size of /dev/shm."),
    attribute("pids", v.POSITIVE, "Processes at most.", "4096"),
)

HEALTH = element(
    "health",
    "When a replica is healthy. Without it: the image's own check, else TCP on all ports, else running for 5 s.",
    attribute("interval", v.PERIOD, "Between two probes.", "5s"),
    attribute("timeout", v.PERIOD, "How long a probe may take.", "2s"),
    attribute("retries", v.POSITIVE, "Failures in a row that make it unhealthy.", "3"),
    attribute("start-period", v.DURATION, "How long failures don't count after a start.", "30s"),
    element(
        "http",
        "An HTTP request.",
        attribute("port", v.NAMED, "The port's name; without it the first one.", refers="port"),
        attribute("path", v.PREFIX, "The path.", "/"),
        attribute("status", v.STATUS, "The status that counts as healthy, or a range.", "200-399"),
        element(
            "header",
            "A header to send.",
            attribute("name", v.HEADER, "Its name.", required=True),
            text=v.HEADER_TEXT,
            many=True,
            key="name",
        ),
    ),
    element(
        "tcp",
        "A TCP connection.",
        attribute("port", v.NAMED, "The port's name; without it the first one.", refers="port"),
    ),
    element("exec", "A command in the container, run by Docker.", args("One argument.")),
    element("image", "The image's own check."),
    one_of=("http", "tcp", "exec", "image"),
)

LOG = element(
    "log",
    "Where its output goes.",
    attribute("driver", v.like("a log driver", "local", r"[a-z0-9_./:\-]+"), "Docker's log driver.", "local"),
    attribute("max-size", v.SOME_SIZE, "When a file is rotated.", "10MiB"),
    attribute("max-files", v.POSITIVE, "How many files are kept.", "5"),
)

STOP = element(
    "stop",
    "How it is stopped.",
    attribute("signal", v.SIGNAL, "The signal; without it the image's own, else SIGTERM."),
    attribute("grace", v.DURATION, "How long it has before it is killed.", "30s"),
)

PLACEMENT = element(
    "placement",
    "Where replicas may run. Without it they are spread over the nodes and stay where they are.",
    element(
        "require",
        "Only nodes with this label.",
        attribute("label", v.KEY, "Its name.", refers="label", required=True),
        text=v.LABEL_TEXT,
        many=True,
        key="label",
    ),
    element(
        "spread",
        "Spread over the values of a label; the first rule counts most.",
        attribute("by", v.KEY, "The label: `node`, `zone` …", refers="label", required=True),
        attribute("max", v.POSITIVE, "At most so many for one value."),
        many=True,
        key="by",
    ),
    element(
        "avoid",
        "Not on a node with that app.",
        attribute("app", v.NAMED, "The app.", refers="apps", required=True),
        many=True,
        key="app",
    ),
    element(
        "pin",
        "One replica's fixed place.",
        attribute("replica", v.COUNT, "The replica's number.", required=True),
        attribute("node", v.NAMED, "Its node.", refers="nodes"),
        attribute("address", v.ADDRESS, "Its address (networks `macvlan` and `ipvlan`)."),
        attribute("port", v.PORT, "Its host port, instead of `auto`."),
        many=True,
        key="replica",
    ),
)

UPDATE = element(
    "update",
    "How a change is rolled out.",
    attribute(
        "strategy",
        v.choice("rolling", "recreate"),
        "`recreate`: never two of one replica; what holds without it where a writable volume binds to a node.",
    ),
    attribute("max-surge", v.SHARE, "So many more than desired while it lasts.", "1"),
    attribute("max-unavailable", v.SHARE, "So many fewer than desired while it lasts.", "0"),
    attribute("drain", v.DURATION, "Between leaving the gateways and stopping.", "30s"),
    attribute("pause-after", v.COUNT, "Wait for `k4t continue` after so many replicas; 0 never.", "0"),
    attribute("timeout", v.PERIOD, "How long a replica may take to get healthy.", "5m"),
    attribute("on-failure", v.choice("rollback", "stop"), "What happens when it doesn't.", "rollback"),
)

RECYCLE = element(
    "recycle",
    "Replace replicas one by one, for no other reason than their age.",
    attribute("every", v.PERIOD, "One replica in such a period, the oldest.", required=True),
)
DEPENDS = element(
    "depends",
    "Started after another app is healthy.",
    attribute("on", v.NAMED, "That app.", refers="apps", required=True),
    many=True,
    key="on",
)

JOB = element(
    "job",
    "A command that runs to its end in a container of its own, with the app's environment, files, volumes and limits; "
    "never two of one job at once.",
    attribute("name", v.NAMED, "The job's name.", required=True),
    attribute(
        "before",
        v.choice("update"),
        "Run once for each new spec of the app, before its first new container; when it fails nothing is replaced. "
        "Or `schedule`.",
    ),
    attribute(
        "schedule",
        v.CRON,
        "Five cron fields: a timer on one node (systemd or cron) starts the job's container, also while k4t is not "
        "running. What it writes outside of volumes stays until the job or the app changes. Or `before`.",
    ),
    attribute("timezone", v.TIMEZONE, "The schedule's time zone.", "UTC"),
    attribute("timeout", v.PERIOD, "How long it may take; then it is stopped, and has failed.", "10m"),
    element("image", "Another image than the app's.", text=v.IMAGE, text_required=True),
    element(
        "command",
        "What it runs, with arguments. Required, unless the job has an image of its own.",
        args("One argument."),
    ),
    secret_env(),
    many=True,
    key="name",
)

SCALE = element(
    "scale",
    "The number of replicas follows the load, as the monitor measures it (docs/scaling.md); not with `replicas`. The "
    "number itself never stands in the tree. Of several measures, the one that wants most replicas decides.",
    attribute("min", v.COUNT, "At least so many; 0 only with `command` alone.", required=True),
    attribute("max", v.POSITIVE, "At most so many.", required=True),
    attribute("cpu", v.PERCENT, "The share of `<resources cpus>` to aim at, as the mean of all replicas."),
    attribute("memory", v.PERCENT, "The share of `<resources memory>` to aim at, likewise."),
    attribute("requests", v.DECIMAL, "Requests a second to aim at for each replica, as Envoy and HAProxy count them."),
    attribute("command", v.COMMAND, "Run by the monitor; prints the number of replicas wanted."),
    attribute("tolerance", v.PERCENT, "What is measured may be so far off the aim before anything is done.", "10%"),
    attribute("stabilize-up", v.DURATION, "So long more replicas must be wanted before there are more.", "30s"),
    attribute("stabilize-down", v.DURATION, "So long fewer must be wanted before there are fewer.", "5m"),
)

DOCKER = element(
    "docker",
    "The way out: merged into Docker's create call; keys that k4t owns are refused.",
    attribute("file", v.RELATIVE, "A JSON file of the app's directory.", required=True),
)

APP = element(
    "app",
    "A named service.",
    attribute("name", v.NAMED, "The name; optional, it must be the directory's."),
    attribute("replicas", v.REPLICAS, "How many, or `per-node`: one on every node that fits.", "1"),
    attribute("stopped", v.BOOLEAN, "Nothing of it runs.", "false"),
    attribute("restart", v.COUNT, "Raised by `k4t restart`: another number, new containers.", "0"),
    IMAGE,
    ENTRYPOINT,
    COMMAND,
    CONTAINER,
    NETWORK,
    PORT,
    secret_env(),
    LABEL,
    FILE,
    VOLUME,
    RESOURCES,
    HEALTH,
    LOG,
    STOP,
    PLACEMENT,
    UPDATE,
    RECYCLE,
    DEPENDS,
    JOB,
    SCALE,
    ROUTE,
    RECORD,
    DOCKER,
)
