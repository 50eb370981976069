"""Alert rules for Prometheus, as the file that it loads. Pure; the same for every cluster, since thresholds and the
periods of copies are metrics of their own: monitor.xml alone says what is too much.

Every expression is aggregated to the labels that name a thing, so that two monitors of one cluster are one alert. What
is not known is absent, so one root cause is one alert: of a host that is off nothing else is known. What no rule here
is made for is told by K4tFinding, as `k4t monitor check` found it.
https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from k4t.model.value import value

MINUTE = 60
STALE_S = 300
GONE_WITHIN = "1h"


@value
class Rule:
    """One alert. `labels` of `expr` that `summary` and `description` name are in it. `for_s`: so long it must hold."""

    alert: str
    expr: str
    for_s: int
    summary: str
    description: str
    severity: str = "critical"


def yaml() -> str:
    """The whole file. JSON's strings are YAML's."""
    lines = [
        "# Alert rules for k4t's metrics, by k4t monitor export prometheus --rules FILE; promtool checks them.",
        "# Thresholds are not here: monitor.xml has them, and they come with the metrics.",
        "groups:",
    ]
    for name, rules in GROUPS.items():
        lines += [f"  - name: {name}", "    rules:"]
        for rule in rules:
            lines += [f"      - {line}" if not place else f"        {line}" for place, line in enumerate(_rule(rule))]
    return "".join(f"{line}\n" for line in lines)


def _rule(rule: Rule) -> Iterator[str]:
    yield f"alert: {rule.alert}"
    yield "expr: |-"
    yield from (f"  {line}" for line in rule.expr.splitlines())
    yield f"for: {duration(rule.for_s)}"
    yield from ("labels:", f"  severity: {json.dumps(rule.severity)}", "annotations:")
    yield f"  summary: {json.dumps(rule.summary, ensure_ascii=False)}"
    yield f"  description: {json.dumps(rule.description, ensure_ascii=False)}"


def duration(seconds: int) -> str:
    return f"{seconds // MINUTE}m" if seconds % MINUTE == 0 else f"{seconds}s"


# --- how expressions are made ------------------------------------------------------------------------------------


def worst(by: str, metric: str, how: str = "max") -> str:
    """One series for each thing, however many monitors see it."""
    return f"{how} by ({by}) ({metric})"


def unless(expr: str, on: str, condition: str) -> str:
    return f"({expr})\nunless on ({on}) ({condition})"


def age(by: str, since: str) -> str:
    """How old it was at the check: a monitor that is late makes nothing else look old."""
    now = worst("cluster", "k4t_check_timestamp_seconds")
    return f"{now} - on (cluster) group_right () {worst(by, since)}"


def limit(family: str, of: str, level: str) -> str:
    return worst("cluster", f'{family}{{of="{of}",level="{level}"}}')


def measured(
    rule: Rule, family: str, of: str, *, operator: str = ">=", on: str = "cluster", labels: str = ""
) -> Iterator[Rule]:
    """A warning and a critical one, each beyond its threshold. `labels`: of the thing, where its threshold is its own
    and not the cluster's."""
    left = "" if labels else "group_left () "
    for level in ("warning", "critical"):
        threshold = worst(labels, f'{family}{{level="{level}"}}') if labels else limit(family, of, level)
        yield replace(rule, expr=f"{rule.expr}\n{operator} on ({on}) {left}{threshold}", severity=level)


OF = "of cluster {{ $labels.cluster }}"
LOOK = "k4t monitor check says more."
RUN = f"{worst('cluster', 'k4t_run_active')} == 1"
OFF = f"{worst('cluster', 'k4t_master_off_on_purpose')} == 1"


# --- the monitor, hosts ------------------------------------------------------------------------------------------


def _monitor() -> Iterator[Rule]:
    yield Rule(
        "K4tMonitorStale",
        f"time() - {worst('cluster', 'k4t_check_timestamp_seconds')} > {STALE_S}",
        MINUTE,
        f"Nobody has looked at cluster {{{{ $labels.cluster }}}} for {STALE_S // MINUTE} minutes",
        "The last check was {{ $value | humanizeDuration }} ago: nothing else that is said of the cluster is news. "
        "See why the timer or cron line no longer ends well: k4t monitor export prometheus, by hand, as its user.",
    )
    yield Rule(
        "K4tMonitorGone",
        f"{worst('cluster', f'k4t_check_timestamp_seconds offset {GONE_WITHIN}')}\n"
        f"unless on (cluster) {worst('cluster', 'k4t_check_timestamp_seconds')}",
        10 * MINUTE,
        "The metrics of cluster {{ $labels.cluster }} are gone",
        "They came within the last hour, and no longer do. Is the node exporter up, and is the file still in its "
        "textfile directory? Of a cluster that was given up, this ends within the hour.",
    )
    yield Rule(
        "K4tMonitorAbsent",
        "absent(k4t_check_timestamp_seconds)",
        10 * MINUTE,
        "There are no metrics of any k4t cluster",
        "Does k4t monitor export prometheus run, into the textfile directory of a node exporter that is scraped?",
    )
    yield Rule(
        "K4tMonitorCutOff",
        f"{worst('cluster', 'k4t_monitor_cut_off', 'min')} == 1",
        2 * MINUTE,
        "None of the hosts of cluster {{ $labels.cluster }} answers the monitor",
        "The monitor's own machine is cut off, or all of them are off. Look at its network first.",
    )


def _hosts() -> Iterator[Rule]:
    by = "cluster, kind, host"

    def down(kind: str) -> str:
        metric = f"k4t_host_up{{{kind}}}"
        return f"{worst(by, metric, 'min')} == 0\nand on ({by}) {worst(by, 'k4t_host_expected_up', 'min')} == 1"

    yield Rule(
        "K4tNodeDown",
        down('kind="node"'),
        2 * MINUTE,
        f"Node {{{{ $labels.host }}}} {OF} does not answer",
        "Nothing is known of what runs on it. k4t node check {{ $labels.host }} says how far one gets; when it is "
        "lost, switch it off and say k4t node dead {{ $labels.host }}: its replicas are placed elsewhere.",
    )
    yield Rule(
        "K4tHostDown",
        down('kind!="node"'),
        2 * MINUTE,
        f"Host {{{{ $labels.host }}}} ({{{{ $labels.kind }}}}) {OF} does not answer",
        f"It is off, cut off, or refuses the login, and was not switched off on purpose. {LOOK}",
    )
    docker = f"{worst('cluster, node', 'k4t_node_docker_up', 'min')} == 0"
    dead = worst("cluster, node", 'k4t_node_info{availability="dead"}')
    yield Rule(
        "K4tDockerDown",
        unless(docker, "cluster, node", dead),
        2 * MINUTE,
        f"Docker does not answer on node {{{{ $labels.node }}}} {OF}",
        "The host does. Look at systemctl status docker there; containers may serve on, but nothing is known of them.",
    )


def _resources() -> Iterator[Rule]:
    by, where = "cluster, kind, host", f"on {{{{ $labels.host }}}} {OF}"
    share = "{{ $value | humanizePercentage }}"
    disk = f"{by}, mountpoint"
    own, docker = '{disk=~"root|state"}', '{disk="docker"}'

    def fullest(labels: str) -> str:
        """Of space or inodes, whichever is scarcer. Two things on one file system are one."""
        return worst(disk, f"k4t_host_disk_used_ratio{labels}")

    yield from measured(
        Rule("K4tDiskFull", fullest(own), 5 * MINUTE, f"The disk {{{{ $labels.mountpoint }}}} {where} is {share} full",
             "Make room there, of space or of inodes; k4t keeps copies and documents on it."),
        "k4t_threshold_ratio", "disk",
    )  # fmt: skip
    alone = f"({fullest(docker)}\nunless on ({disk}) {fullest(own)})"
    yield from measured(
        Rule("K4tDockerDiskFull", alone, 5 * MINUTE,
             f"Docker's disk {{{{ $labels.mountpoint }}}} {where} is {share} full",
             "k4t prune removes images that nothing needs any more; then look for large volumes and logs."),
        "k4t_threshold_ratio", "docker-disk",
    )  # fmt: skip
    yield from measured(
        Rule("K4tMemoryShort", worst(by, "k4t_host_memory_used_ratio"), 5 * MINUTE,
             f"{share} of the memory {where} is used", "k4t top shows by whom."),
        "k4t_threshold_ratio", "memory",
    )  # fmt: skip
    yield from measured(
        Rule("K4tCpuBusy", worst(by, "k4t_host_cpu_used_ratio"), 10 * MINUTE,
             f"The processors {where} are {share} busy", "k4t top shows by whom."),
        "k4t_threshold_ratio", "cpu",
    )  # fmt: skip
    yield from measured(
        Rule("K4tLoadHigh", worst(by, "k4t_host_load1 / k4t_host_cpus"), 10 * MINUTE,
             f"{{{{ $value | humanize }}}} wait for each processor {where}",
             "Look for slow disks, and for what runs there."),
        "k4t_threshold_load", "load",
    )  # fmt: skip
    skew = worst(by, "abs(k4t_host_clock_skew_seconds) - k4t_host_clock_skew_doubt_seconds")
    for rule in measured(
        Rule("K4tClockSkew", skew, 5 * MINUTE, f"The clock {where} is {{{{ $value | humanizeDuration }}}} off",
             "Let it keep time: chrony, systemd-timesyncd."),
        "k4t_threshold_seconds", "clock-skew",
    ):  # fmt: skip
        yield replace(rule, expr=unless(rule.expr, "cluster", worst("cluster", OWN_CLOCK)))


# --- apps, gateways, DNS servers ---------------------------------------------------------------------------------


APP_RULES = {
    "K4tAppShortOfReplicas": ("container-missing|container-stopped", 5 * MINUTE),
    "K4tAppRestarting": ("restarting", MINUTE),
    "K4tAppUnhealthy": ("unhealthy|endpoint-dead", 5 * MINUTE),
    "K4tAppNotPublished": ("unpublished", 5 * MINUTE),
}
"""What is told of replicas, by their states."""


def _apps() -> Iterator[Rule]:
    by, of = "cluster, app", f"App {{{{ $labels.app }}}} {OF}"
    state = "cluster, app, state"

    def count(states: str) -> str:
        return f"sum by ({by}) ({worst(state, f'k4t_app_replicas{states}')})"

    down = f"""{count('{state=~"well|unknown"}')} == 0\nand on ({by}) {count("")} > 0"""
    explain = "k4t explain {{ $labels.app }} says why, and what would help."
    yield Rule(
        "K4tAppDown",
        down,
        2 * MINUTE,
        f"{of} has no replica that is well",
        f"None is on a node that can't be asked, either. {explain}",
    )
    for alert, (states, for_s) in APP_RULES.items():
        found = worst(state, f'k4t_app_replicas{{state=~"{states}"}}')
        yield Rule(
            alert,
            unless(f"{found} > 0", by, down),
            for_s,
            f"{of}: {{{{ $value }}}} of its replicas: {{{{ $labels.state }}}}",
            explain,
            severity="warning",
        )
    exits = Rule(
        "K4tAppRestarting",
        worst(by, "k4t_app_recent_exits"),
        MINUTE,
        f"{of}: a replica ended {{{{ $value }}}} times in ten minutes",
        "k4t logs {{ $labels.app }} says why.",
    )
    yield from (rule for rule in measured(exits, "k4t_threshold_exits", "restarts") if rule.severity == "critical")


def _participants() -> Iterator[Rule]:
    by = "cluster, kind, group, participant"
    of = f"{{{{ $labels.kind }}}} {{{{ $labels.participant }}}} {OF}"
    up, serving, rendered, in_step = (
        f"{worst(by, f'k4t_participant_{name}', 'min')} == 0" for name in ("up", "serving", "rendered", "in_step")
    )
    check = "k4t {{ $labels.kind }} check {{ $labels.participant }}"
    yield Rule(
        "K4tParticipantDown",
        f"{up}\nor {serving}",
        2 * MINUTE,
        f"{of} does not serve, or can't be asked",
        f"Start it; {check} says how far one gets.",
    )
    yield Rule(
        "K4tParticipantOutOfStep",
        in_step,
        5 * MINUTE,
        f"{of} holds or serves something else than group {{{{ $labels.group }}}}",
        "k4t {{ $labels.kind }} sync shows the difference and heals it; so does k4t apply.",
    )
    yield Rule(
        "K4tParticipantRefuses",
        rendered,
        2 * MINUTE,
        f"{of} refuses the configuration that it was given",
        f"The last good one serves. {check} has the checker's words: mend the route or record they name, then apply.",
    )


# --- copies, locks, certificates, all else -----------------------------------------------------------------------


def _cluster() -> Iterator[Rule]:
    target = "cluster, target"
    for rule in measured(
        Rule("K4tBackupOverdue", age(target, "k4t_backup_confirmed_timestamp_seconds"), 5 * MINUTE,
             f"The newest copy of the tree on {{{{ $labels.target }}}} {OF} is {{{{ $value | humanizeDuration }}}} old",
             "That is several of its periods. k4t backup makes one, and says what hinders it."),
        "k4t_backup_age_limit_seconds", "", on=target, labels=target,
    ):  # fmt: skip
        yield replace(rule, expr=unless(rule.expr, "cluster", OFF))
    yield Rule(
        "K4tBackupMissing",
        unless(worst(target, 'k4t_backup_state{state="none"}') + " == 1", "cluster", OFF),
        15 * MINUTE,
        f"There is no copy of the tree on {{{{ $labels.target }}}} {OF}",
        "k4t backup makes one.",
        severity="warning",
    )
    yield Rule(
        "K4tBackupRefused",
        worst(target, 'k4t_backup_state{state="refused"}') + " == 1",
        5 * MINUTE,
        f"What {{{{ $labels.target }}}} {OF} says of its copies is not genuine",
        "They were altered, or signed by nobody that may. k4t backup verify; look at that host.",
    )
    ends = worst("cluster, certificate", "k4t_certificate_expiry_timestamp_seconds", "min")
    yield from measured(
        Rule("K4tCertificateExpiry", f"{ends} - time()", 5 * MINUTE,
             f"Certificate {{{{ $labels.certificate }}}} {OF} ends in {{{{ $value | humanizeDuration }}}}",
             "Renew the chain of certificates/{{ $labels.certificate }}.xml, then k4t apply."),
        "k4t_threshold_seconds", "certificate-expiry", operator="<=",
    )  # fmt: skip
    yield from measured(
        Rule("K4tLockHeld", age("cluster", "k4t_lock_since_timestamp_seconds"), 0,
             "A run has held the lock of cluster {{ $labels.cluster }} for {{ $value | humanizeDuration }}",
             "No lock is ever stale: that run works, or waits for an answer. k4t monitor check says who and where; end "
             "it there, and its lock goes with it."),
        "k4t_threshold_seconds", "lock-age", on="cluster",
    )  # fmt: skip
    yield from measured(
        Rule("K4tTransactionOpen", age("cluster", "k4t_transaction_since_timestamp_seconds"), 0,
             "A publication of cluster {{ $labels.cluster }} is open for {{ $value | humanizeDuration }}",
             "k4t txn list shows it; the next k4t apply ends it."),
        "k4t_threshold_seconds", "transaction-age", on="cluster",
    )  # fmt: skip
    yield _finding()


TOLD = (
    "garbage", "disk", "docker-disk", "memory", "cpu", "load", "clock-skew", "docker", "container-missing",
    "restarting", "container-stopped", "unhealthy", "endpoint-dead", "unpublished", "gateway-away", "dns-away",
    "gateway-stopped", "dns-stopped", "out-of-step", "rejected-config", "certificate-expiry", "backup-age",
    "backup-refused", "transaction-open", "lock-held",
)  # fmt: skip
"""Findings that a rule of their own tells, at these levels: warning and critical."""
AWAY = ("host-off", "network", "sshd", "login", "hangs")
"""The same, but at critical alone: a node that is drained may be off, which is a warning."""
OWN_CLOCK = 'k4t_finding{kind="cluster",what="clock-skew"}'


def _finding() -> Rule:
    by = "cluster, kind, name, what, level"
    found = (
        f'k4t_finding{{level=~"warning|critical",what!~"{"|".join((*TOLD, *AWAY))}"}}',
        f'k4t_finding{{level="warning",what=~"{"|".join(AWAY)}"}}',
        'k4t_finding{level="unknown"}',
        OWN_CLOCK,
    )
    return Rule(
        "K4tFinding",
        "\nor ".join(worst(by, one) for one in found),
        MINUTE,
        f"{{{{ $labels.kind }}}} {{{{ $labels.name }}}} {OF}: {{{{ $labels.what }}}}",
        "k4t monitor check says since when, and what would help; docs/monitor.md what it means.",
        severity='{{ if eq $labels.level "critical" }}critical{{ else }}warning{{ end }}',
    )


GROUPS: dict[str, tuple[Rule, ...]] = {
    "k4t-monitor": tuple(_monitor()),
    "k4t-hosts": (*_hosts(), *_resources()),
    "k4t-apps": (*_apps(), *_participants()),
    "k4t-cluster": tuple(_cluster()),
}
