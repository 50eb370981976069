"""One small command that tells how a host is: POSIX sh, nothing to install (coreutils and util-linux, or busybox).

It answers lines of a word and the rest, the first of them `k4t-probe 1`; what comes before that is a shell's greeting.
What a host has no program for is left out. `answer` takes the lines in.

    clock 1794830400 123456789      its own time: seconds, and nanoseconds where date knows them
    uptime …   load …               /proc/uptime, /proc/loadavg
    cpus 4     ticks cpu …          processors, the first line of /proc/stat
    memory MemTotal: 16384 kB       lines of /proc/meminfo
    disk NAME /dev/sda1 …           a line of `df -Pk`; NAME is root, docker, state
    inodes NAME …                   of `df -Pi`
    process 2 sshd                  how many of a name run
    lock free|held [RECORD]         the cluster's lock, and who holds it
    head|confirmed|off TEXT         files of the cluster's, a line each; `denied NAME` for one that can't be read
    copy TEXT                       the first line of the newest copy of the tree
    cluster ID     driver NAME      what else is kept here
"""

from __future__ import annotations

import time

from k4t.command import Completed
from k4t.errors import ConnectionLost
from k4t.monitor.facts import Reading
from k4t.monitor.looking.answer import PROCESSES, parse
from k4t.remote.lock import STATE
from k4t.remote.restricted import PROBE
from k4t.remote.transport import Transport

TIMEOUT_S = 15.0
"""A host where forty programs wait for each processor needs that long for the few that it runs."""
MAX_BYTES = 1536 * 1024

SCRIPT = r"""
echo "k4t-probe 1"
echo "clock $(date '+%s %N')"
LC_ALL=C; export LC_ALL; PATH=$PATH:/usr/sbin:/sbin; state=$1 id=$2; shift 2
first() { read -r line <"$2" && echo "$1 $line"; }
first uptime /proc/uptime; first load /proc/loadavg; first ticks /proc/stat
echo "cpus $(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)"
sed -n 's/^MemTotal:/memory &/p; s/^MemFree:/memory &/p; s/^MemAvailable:/memory &/p; s/^Buffers:/memory &/p
  s/^Cached:/memory &/p; s/^SwapTotal:/memory &/p; s/^SwapFree:/memory &/p' /proc/meminfo
docker= pid=
{ read -r pid </run/docker.pid || read -r pid </var/run/docker.pid; } 2>/dev/null
[ "$pid" ] && [ -r "/proc/$pid/cmdline" ] && docker=$(tr '\0' '\n' <"/proc/$pid/cmdline" |
  sed -n 's/^--data-root=//p; /^--data-root$/{n;p;}; /^-g$/{n;p;}')
[ -z "$docker" ] && [ -r /etc/docker/daemon.json ] &&
  docker=$(sed -n 's/.*"data-root"[^"]*"\([^"]*\)".*/\1/p' /etc/docker/daemon.json)
docker=${docker:-/var/lib/docker}
found=$(printf '%s\n' "$@" | grep -hxF -f - /proc/[0-9]*/comm 2>/dev/null)
for name; do
  n=0; for one in $found; do [ "$one" = "$name" ] && n=$((n + 1)); done
  echo "process $n $name"
done
space() { read -r _; for name in $2; do read -r line && echo "$1 $name $line"; done; }
names=root; set -- /
[ -d "$docker" ] && { names="$names docker"; set -- "$@" "$docker"; }
[ -d "$state" ] && { names="$names state"; set -- "$@" "$state"; }
df -Pk "$@" 2>/dev/null | space disk "$names"
df -Pi "$@" 2>/dev/null | space inodes "$names"
for d in "$state"/*/head; do [ -f "$d" ] && d=${d%/head} && echo "cluster ${d##*/}"; done
for d in "$state"/registrar/*/config.json; do [ -f "$d" ] && d=${d%/config.json} && echo "driver ${d##*/}"; done
[ "$id" ] || exit 0
lock=$state/$id/lock
if ! command -v flock >/dev/null; then :
elif [ ! -e "$lock" ] || flock -n -s "$lock" true 2>/dev/null; then echo "lock free"
elif [ -r "$lock" ]; then echo "lock held $(head -n 1 "$lock")"
else echo "denied lock"; fi
file() {
  if [ -h "$2" ]; then echo "denied $1"
  elif [ -r "$2" ]; then echo "$1 $(head -c "$3" "$2")"
  elif [ -e "$2" ] || { [ -e "${2%/*}" ] && [ ! -x "${2%/*}" ]; }; then echo "denied $1"; fi
}
file off "$state/$id/off" 8192; file confirmed "$state/$id/copies/confirmed" 8192
file head "$state/$id/head" 1048000
newest=
for one in "$state/$id/copies"/*.snapshot; do [ -f "$one" ] && [ ! -h "$one" ] && newest=$one; done
[ "$newest" ] && echo "copy $(head -c 4096 "$newest" | head -n 1)"
exit 0
"""
"""sh reads a file byte by byte: what is long goes through one program each, for all lines and all processes at once.
$1 k4t's directory, $2 the cluster's id ("": any), then the names of processes. The clock comes first, so that half
the round trip bounds how wrong it may be read."""


def argv(cluster_id: str) -> list[str]:
    return ["sh", "-c", SCRIPT, "k4t-probe", STATE, cluster_id, *PROCESSES]


def ask(transport: Transport, cluster_id: str, *, timeout_s: float = TIMEOUT_S) -> Reading:
    """One round trip. Raises answer.Garbage, ConnectionLost, and what else the transport raises."""
    sent_s, began_s = time.time(), time.monotonic()
    done = transport.run(argv(cluster_id), timeout_s=timeout_s, max_output_bytes=MAX_BYTES)
    return taken_in(done, sent_s, time.monotonic() - began_s, transport.host)


def ask_by_own_key(transport: Transport) -> Reading:
    """The same of a master that lets the monitor's key in, which runs it there by itself."""
    sent_s, began_s = time.time(), time.monotonic()
    done = transport.run([PROBE], timeout_s=TIMEOUT_S, max_output_bytes=MAX_BYTES, bare=True)
    return taken_in(done, sent_s, time.monotonic() - began_s, transport.host)


def taken_in(done: Completed, sent_s: float, took_s: float, host: str) -> Reading:
    """As `answer.parse`; a lost exit status is a lost connection. Raises ConnectionLost, answer.Garbage."""
    if done.exit_status is None:
        raise ConnectionLost("the connection was lost while it was asked how it is", host=host)
    return parse(done, sent_s=sent_s, took_s=took_s, host=host)
