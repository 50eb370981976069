"""Every metric that is exported, and what it is about, by its name. Names and units as
https://prometheus.io/docs/practices/naming/ has them: base units, ratios from 0 to 1, times as Unix seconds.

What is not known is absent, never 0. Names are what people's alerts and dashboards are made of: families are added,
none is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping

CHECK: Mapping[str, str] = {
    "k4t_cluster_info": "Always 1: the cluster's id, and the version of the k4t that looked.",
    "k4t_check_timestamp_seconds": "When all this was seen.",
    "k4t_check_duration_seconds": "How long the check took.",
    "k4t_export_dropped_series": "Series that were too many for this export.",
    "k4t_monitor_cut_off": "1 when nothing comes from any host: rather this monitor is cut off than all of them.",
    "k4t_findings": "Findings that are raised, as k4t monitor check has them, by level.",
    "k4t_finding": "Always 1: a finding that is raised; what it is, and of what. Level ok is only worth knowing.",
    "k4t_finding_since_timestamp_seconds": "Since when a raised finding has been seen.",
}
CLUSTER: Mapping[str, str] = {
    "k4t_cluster_serial": "Serial of the newest revision that was applied, as the hosts know it.",
    "k4t_master_off_on_purpose": "1 when the master said, before it went off, that it would be off.",
    "k4t_run_active": "1 while a run changes the cluster, for ten minutes at most; what it changes is not judged then.",
    "k4t_lock_held": "1 while a run holds the cluster's lock.",
    "k4t_lock_since_timestamp_seconds": "Since when the cluster's lock is held.",
    "k4t_transactions_open": "Publications that are neither done nor taken back.",
    "k4t_transaction_since_timestamp_seconds": "Since when the oldest open publication is known.",
    "k4t_certificate_expiry_timestamp_seconds": "When a certificate that is served, or that a route names, ends.",
    "k4t_backup_period_seconds": "How often the tree is to be copied to this target.",
    "k4t_backup_confirmed_timestamp_seconds": "When the newest copy there was last confirmed to be what the tree is.",
    "k4t_backup_state": "1 for what is known of the copies there: confirmed, none, denied or refused.",
    "k4t_backup_age_limit_seconds": "The age of a copy that is worth a warning, and the critical one.",
}
THRESHOLDS: Mapping[str, str] = {
    "k4t_threshold_ratio": "From which share of disk, docker-disk, memory or cpu on it is a warning, or critical.",
    "k4t_threshold_seconds": "The same of clock-skew, lock-age, transaction-age and certificate-expiry (what is left).",
    "k4t_threshold_load": "The same of the load for each processor.",
    "k4t_threshold_exits": "The same of how often a replica ends by itself in ten minutes.",
}
HOSTS: Mapping[str, str] = {
    "k4t_host_up": "1 when the host answers over SSH. Absent when the monitor is cut off.",
    "k4t_host_expected_up": "0 when the host may be off: the master on purpose, or a node that is drained or dead.",
    "k4t_host_failure": "Always 1: why the host could not be asked.",
    "k4t_host_uptime_seconds": "How long ago the host was started.",
    "k4t_host_load1": "Load of the last minute.",
    "k4t_host_load5": "Load of the last five minutes.",
    "k4t_host_load15": "Load of the last fifteen minutes.",
    "k4t_host_cpus": "Processors of the host.",
    "k4t_host_cpu_used_ratio": "How busy its processors were, all together, since the check before.",
    "k4t_host_memory_size_bytes": "Memory of the host.",
    "k4t_host_memory_available_bytes": "Memory that programs could still have.",
    "k4t_host_memory_used_ratio": "Share of the memory that is not available.",
    "k4t_host_swap_size_bytes": "Swap of the host.",
    "k4t_host_swap_free_bytes": "Swap that is free.",
    "k4t_host_disk_size_bytes": "Size of the file system of / (root), of /var/lib/k4t (state), or of Docker's root.",
    "k4t_host_disk_available_bytes": "What others than root may still write there.",
    "k4t_host_disk_used_ratio": "Share that is used of its space, and of its inodes where they can run out.",
    "k4t_host_clock_skew_seconds": "The host's clock less the monitor's.",
    "k4t_host_clock_skew_doubt_seconds": "So much of the skew may be the monitor's own doubt.",
    "k4t_node_info": "Always 1: the node's availability in the tree, and the host (as in k4t_host_up) it is on.",
    "k4t_node_docker_up": "1 when the node's Docker answers. Absent when its host doesn't.",
    "k4t_node_containers": "Containers of this cluster on the node, running or not.",
    "k4t_node_containers_running": "Containers of this cluster that run on the node.",
    "k4t_node_containers_foreign": "Containers on the node that are not this cluster's.",
    "k4t_node_images_bytes": "What the node's images take; only known when its disk is short.",
}
APPS: Mapping[str, str] = {
    "k4t_app_replicas": "Desired replicas by state: well, unknown, or the finding. Absent while a run changes them.",
    "k4t_app_replicas_desired": "Replicas that should run.",
    "k4t_app_replicas_running": "Containers that run, on the nodes that answer.",
    "k4t_app_replicas_healthy": "Containers that answer their check, asked from their node.",
    "k4t_app_replicas_published": "Containers that a group of gateways or DNS servers sends to, if any answers.",
    "k4t_app_replicas_reached": "Published containers that answer a gateway's host.",
    "k4t_app_recent_exits": "How often a replica has ended in the last ten minutes: the one that did so most often.",
    "k4t_app_held": "1 when its spec did not get healthy, and is not tried again.",
}
PARTICIPANTS: Mapping[str, str] = {
    "k4t_participant_info": "Always 1: the driver of a gateway or DNS server, and the host (as in k4t_host_up).",
    "k4t_participant_up": "1 when the gateway or DNS server can be asked. Absent when its host doesn't answer.",
    "k4t_participant_serving": "1 when somebody serves there.",
    "k4t_participant_rendered": "1 when its own checker takes what it was given; else the last good one serves.",
    "k4t_participant_in_step": "1 when it holds what its group holds, and serves it. Absent while that is not judged.",
    "k4t_participant_epoch": "The number of the epoch of the run that it obeyed last.",
    "k4t_participant_seq": "The sequence number of the document that it holds.",
    "k4t_participant_endpoints": "Endpoints of this cluster that it sends to.",
    "k4t_participant_withdrawn": "Endpoints of this cluster that somebody took out there.",
    "k4t_participant_differences": "What it serves otherwise than it was told: so many differences.",
}
FAMILIES: Mapping[str, str] = {**CHECK, **CLUSTER, **THRESHOLDS, **HOSTS, **APPS, **PARTICIPANTS}
