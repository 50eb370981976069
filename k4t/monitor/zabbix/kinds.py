"""What is told of a thing (docs/monitor.md “What is checked”), by the one level that stands for it."""

from __future__ import annotations

from collections.abc import Mapping

Kinds = Mapping[str, tuple[str, ...]]
HOST: Kinds = {
    "away": ("host-off", "network", "sshd", "login", "hangs", "garbage"),
    "disk": ("disk",),
    "docker_disk": ("docker-disk",),
    "memory": ("memory",),
    "cpu": ("cpu",),
    "load": ("load",),
    "clock": ("clock-skew",),
}
NODE: Kinds = {"docker": ("docker",), "stranger": ("stranger",)}
APP: Kinds = {
    "replicas": ("container-missing", "restarting", "container-stopped", "unhealthy", "endpoint-dead"),
    "unpublished": ("unpublished",),
    "held": ("held",),
}
MEMBER: Kinds = {
    "away": ("gateway-away", "dns-away"),
    "stopped": ("gateway-stopped", "dns-stopped"),
    "step": ("out-of-step",),
    "rejected": ("rejected-config",),
    "withdrawn": ("withdrawn",),
}
BACKUP: Kinds = {"age": ("backup-age",), "refused": ("backup-refused",)}
CERTIFICATE: Kinds = {"expiry": ("certificate-expiry",)}
CLUSTER: Kinds = {
    "cut_off": ("network",),
    "clock": ("clock-skew",),
    "lock": ("lock-held",),
    "transaction": ("transaction-open",),
}
