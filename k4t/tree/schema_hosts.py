"""The table: nodes, gateways, DNS servers, certificates, secrets."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.schema_shared import power, script, ssh
from k4t.tree.table import attribute, element

_NAME = attribute("name", v.NAMED, "The name; optional, it must be the file's.")

NODE = element(
    "node",
    "A Docker host.",
    _NAME,
    attribute("address", v.ADDRESSES, "Where traffic goes: one IPv4 and/or one IPv6 address.", required=True),
    attribute(
        "availability",
        v.choice("active", "cordoned", "drained", "dead"),
        "`cordoned` gets nothing new, `drained` is emptied, `dead` is given up (and wants a fence).",
        "active",
    ),
    ssh("How to reach it, only where it differs from the cluster's."),
    element(
        "label",
        "A label for placement; `node`, `os` and `arch` come by themselves.",
        attribute("name", v.KEY, "Its name.", required=True),
        text=v.LABEL_TEXT,
        many=True,
        key="name",
    ),
    element(
        "capacity",
        "What placement may count on; without it what Docker reports.",
        attribute("cpus", v.DECIMAL, "CPUs."),
        attribute("memory", v.SOME_SIZE, "Memory."),
        attribute("reserve-memory", v.SIZE, "Memory left to the host itself.", "0"),
    ),
    element(
        "ports",
        "The host ports that k4t may hand out.",
        attribute("range", v.PORT_RANGE, "First and last.", "20000-29999"),
    ),
    element(
        "addresses",
        "The addresses that k4t may hand out to macvlan and ipvlan containers.",
        attribute("range", v.ADDRESS_RANGE, "First and last.", required=True),
        attribute("interface", v.INTERFACE, "The host's interface they are reached through.", required=True),
        attribute("subnet", v.SUBNET, "Their network.", required=True),
        attribute("gateway", v.ADDRESS, "Their default gateway."),
    ),
    power("The node's power switch."),
)

GATEWAY = element(
    "gateway",
    "An external load balancer.",
    _NAME,
    attribute("driver", v.choice("envoy", "haproxy", "nginx", "script"), "What it runs.", required=True),
    attribute("address", v.ADDRESS, "Its address.", required=True),
    attribute("group", v.NAMED, "The gateways that must hold the same.", "default"),
    attribute("http", v.PORT_OR_NONE, "The port for plain HTTP; 0 for none.", "80"),
    attribute("https", v.PORT_OR_NONE, "The port for HTTPS; 0 for none.", "0"),
    ssh("How to reach it, only where it differs from the cluster's."),
    script(),
)

DNS = element(
    "dns",
    "An external DNS server.",
    _NAME,
    attribute("driver", v.choice("dnsmasq", "rfc2136", "hosts", "windows", "script"), "What it runs.", required=True),
    attribute("address", v.ADDRESS, "Its address.", required=True),
    attribute("port", v.PORT, "Its port for DNS.", "53"),
    attribute("zone", v.DOMAIN, "The zone that records are put into.", required=True),
    attribute("group", v.NAMED, "The DNS servers that must hold the same.", "default"),
    attribute("key-name", v.DOMAIN, "Driver `rfc2136` only: the TSIG key's name."),
    attribute("reverse", v.DOMAINS, "Drivers `rfc2136` and `windows`: reverse zones that take PTR records."),
    attribute("path", v.ABSOLUTE, "Driver `hosts` only: the file; without it /etc/k4t/hosts."),
    attribute("secret", v.NAMED, "The secret that holds the TSIG key.", refers="secrets"),
    ssh("How to reach it, only where it differs from the cluster's."),
    script(),
)

CERTIFICATE = element(
    "certificate",
    "A TLS certificate: files of the tree, or files already on the gateways.",
    _NAME,
    attribute("chain", v.RELATIVE, "The chain's file beside this one."),
    attribute("key-secret", v.NAMED, "The secret that holds the key.", refers="secrets"),
    attribute("chain-path", v.ABSOLUTE, "The chain's path on the gateways."),
    attribute("key-path", v.ABSOLUTE, "The key's path on the gateways."),
)

SECRET = element(
    "secret",
    "A reference to a value that is kept elsewhere; exactly one of the three.",
    _NAME,
    attribute("environment", v.ENV_NAME, "A variable of k4t's own environment."),
    attribute("command", v.COMMAND, "A command that prints it; it is split into words, no shell reads it."),
    attribute("file", v.TEXT, "A file that holds it, readable by its owner only."),
)
