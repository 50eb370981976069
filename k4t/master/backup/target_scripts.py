"""What a target's host runs: POSIX sh, coreutils or busybox. One round trip each, every argument quoted by `command`.

$1 is the directory of the copies. What is not a copy's name there is neither listed nor touched. `newest` and `lineage`
are what the caller saw last: where the host has something else, `moved` is said and nothing is written.
"""

from __future__ import annotations

IN_THE_WAY = 43
NOT_THERE = 44
TEMPORARY = ".k4t-tmp-"
HEADER_BYTES = 4096

_COMMON = f"""\
LC_ALL=C; export LC_ALL; set -e; umask 077; d=$1
if [ -h "$d" ]; then echo "$d is a symbolic link" >&2; exit {IN_THE_WAY}; fi
if [ -e "$d" ] && [ ! -d "$d" ]; then echo "$d is no directory" >&2; exit {IN_THE_WAY}; fi
each() {{ for f in "$d"/[0-9]*-[0-9]*-[0-9]*-[0-9]*Z.snapshot; do
  if [ -f "$f" ] && [ ! -h "$f" ]; then "$@" "$f"; fi; done; }}
last() {{ n=${{1##*/}}; }}
newest() {{ n=; each last; printf %s "$n"; }}
lineage() {{ grep -o '"lineage":{{[^}}]*}}' "${{d%/*}}/head" 2>/dev/null | head -n 1 || true; }}
sum() {{ s=$(sha256sum) && echo "${{s%% *}}"; }}
size() {{ s=$(wc -c <"$1") && echo $((s)); }}
flush() {{ if e=$(sync "$1" 2>&1); then :; else case $e in
  *nvalid*|*nrecognized*|*sage*|*xtra*) sync;; *) echo "$e" >&2; exit 1;; esac; fi; }}
"""

_AS_SEEN = """\
if [ "$(newest)" != "$5" ] || [ "$(lineage)" != "$6" ]; then echo moved; cat >/dev/null; exit 0; fi
"""

_WRITTEN = """\
t=$d/.k4t-tmp-$$; rm -f -- "$t"
trap 'rm -f -- "$t"' EXIT; trap 'exit 1' HUP INT PIPE TERM
set -C; cat >"$t"; set +C
"""

LOOK = f"""\
{_COMMON}
echo "lineage $(lineage)"
p=$d; while [ ! -d "$p" ]; do p=${{p%/*}}; p=${{p:-/}}; done
df -Pk "$p" | {{ read -r _; read -r _ _ _ k _; echo "free $k"; }}
[ -d "$d" ] || exit 0
listed() {{ echo "file $(size "$1") ${{1##*/}}"; }}
all=; collect() {{ all=$all${{all:+ }}${{1##*/}}; }}
each collect
if [ -n "$all" ]; then cd "$d"; stat -c 'file %s %n' -- $all 2>/dev/null || each listed; fi
for n in $(printf '%s\\n' $all | tail -n "$2"); do
  [ "$2" != 0 ] || break
  printf 'head %s\\n%s\\n' "$n" "$(head -c {HEADER_BYTES + 1} "$d/$n" | head -n 1)"
done
if [ -f "$d/confirmed" ] && [ ! -h "$d/confirmed" ]; then echo confirmed; head -c {HEADER_BYTES} "$d/confirmed"; fi
"""
"""$2: of how many of the newest copies the header is wanted."""

STORE = f"""\
{_COMMON}{_AS_SEEN}
[ -d "$d" ] || {{ (umask 022; mkdir -p -- "${{d%/*}}"); mkdir -m 700 -- "$d"; }}
if [ -h "$d/$2" ] || {{ [ -e "$d/$2" ] && [ ! -f "$d/$2" ]; }}; then
  echo "$d/$2 is no regular file" >&2; exit {IN_THE_WAY}; fi
find "$d" -name '{TEMPORARY}*' -mmin +60 -exec rm -f -- {{}} + 2>/dev/null || :
{_WRITTEN}
k=$(size "$t"); if [ "$k" -ne "$3" ]; then echo "only a part of it came" >&2; exit 1; fi
g=$(sum <"$t"); if [ "$g" != "$4" ]; then echo "it is not what was sent" >&2; exit 1; fi
flush "$t"; mv -f -- "$t" "$d/$2"; trap - EXIT; flush "$d"
k=$(size "$d/$2"); g=$(sum <"$d/$2"); echo "stored $k $g"
named() {{ echo "${{1##*/}}"; }}
each named
"""
"""$2 its name, $3 size, $4 sha256, $5 newest, $6 lineage; the copy on standard input."""

CONFIRM = f"""\
{_COMMON}{_AS_SEEN}
f=$d/$2
g=; h=
if [ ! -h "$f" ] && [ -f "$f" ] && [ "$(size "$f")" -eq "$3" ]; then
  h=$(head -n 1 "$f" | sum); g=$(tail -n +2 "$f" | sum); fi
if [ "$h $g" != "$7 $4" ]; then
  echo other; cat >/dev/null; exit 0; fi
{_WRITTEN}
flush "$t"; mv -f -- "$t" "$d/confirmed"; trap - EXIT; flush "$d"
echo confirmed
"""
"""$2 its name, $3 size, $4 sha256 of its payload, $5 newest, $6 lineage, $7 sha256 of its first line; the statement on
standard input."""

FETCH = f'if [ -h "$1" ] || [ ! -f "$1" ]; then exit {NOT_THERE}; fi; exec cat -- "$1"'

REMOVE = f"""\
{_COMMON}
while read -r n; do case $n in */*) ;; *Z.snapshot) rm -f -- "$d/$n";; esac; done
flush "$d"
"""
"""The names on standard input, one a line."""

SUMS = f"""\
{_COMMON}
while read -r n; do case $n in */*) ;; *Z.snapshot)
  if [ -f "$d/$n" ] && [ ! -h "$d/$n" ]; then echo "$(tail -n +2 -- "$d/$n" | sum) $n"; fi;; esac; done
"""
"""The names on standard input; of each the sha256 of its payload."""
