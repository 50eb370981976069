"""What a target's host runs: POSIX sh, coreutils or busybox. One round trip each, every argument quoted by `command`.

$1 is the directory of the copies. What is not a copy's name there is neither listed nor touched. `newest` and `lineage`
are what the caller saw last: where the host has something else, `moved` is said and nothing is written. Parts of large
files (`parts`) are in a directory beside the copies; `named` tells which of them a copy needs, `kept`
whether one is there.
"""

from __future__ import annotations

IN_THE_WAY = 43
NOT_THERE = 44
TEMPORARY = ".k4t-tmp-"
PARTS = "parts"
HEADER_BYTES = 4096
LACKS = "lacks"
LOOKED_MIN = 1440
"""Large files are looked at to the last bit once in so many minutes; by their size whenever they are needed."""

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
named() {{ if [ "$(tail -n +2 -- "$1" | head -c 9 | tr -d '\\0')" = '{{"parts":' ]; then
  tail -n +2 -- "$1" | head -n 1 | grep -o '"[0-9a-f]*",[0-9]*' | tr -d '"' | tr , ' '; fi; }}
good() {{ p=$d/parts/$1; [ ! -h "$p" ] && [ -f "$p" ] && [ "$(size "$p")" = "$2" ] && [ "$(sum <"$p")" = "$1" ]; }}
kept() {{ p=$d/parts/$1; [ ! -h "$p" ] && [ -f "$p" ] && [ "$(size "$p")" = "$2" ] && {{
  [ -n "$(find "$p" -mmin -{LOOKED_MIN})" ] || {{ [ "$(sum <"$p")" = "$1" ] && touch -c -- "$p"; }}; }}; }}
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
base() {{ echo "${{1##*/}}"; }}
each base
"""
"""$2 its name, $3 size, $4 sha256, $5 newest, $6 lineage; the copy on standard input."""

CONFIRM = f"""\
{_COMMON}{_AS_SEEN}
f=$d/$2
g=; h=
if [ ! -h "$f" ] && [ -f "$f" ] && [ "$(size "$f")" -eq "$3" ]; then
  h=$(head -n 1 "$f" | sum); g=$(tail -n +2 "$f" | sum)
  if [ -n "$(named "$f" | while read -r n k; do kept "$n" "$k" || echo no; done)" ]; then h=; fi; fi
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
if [ -d "$d/parts" ] && [ ! -h "$d/parts" ]; then
  used=" $(each named | tr '\\n' ' ') "
  find "$d/parts" -type f -mmin +{LOOKED_MIN + 60} | while read -r p; do
    case $used in *" ${{p##*/}} "*) ;; *) rm -f -- "$p";; esac; done
  flush "$d/parts"
fi
flush "$d"
"""
"""The names on standard input, one a line. Parts that no copy names go too, unless they were looked at a
short while ago: a copy that names them may be on its way."""

SUMS = f"""\
{_COMMON}
there=" "
if [ -d "$d/parts" ] && [ ! -h "$d/parts" ]; then
  for p in "$d"/parts/*; do n=${{p##*/}}
    if [ -f "$p" ] && [ ! -h "$p" ] && [ "$(sum <"$p")" = "$n" ]; then there="$there$n,$(size "$p") "; fi; done
fi
lacks() {{ named "$1" | while read -r m k; do case $there in *" $m,$k "*) ;; *) echo "$m";; esac; done; }}
while read -r n; do case $n in */*) ;; *Z.snapshot)
  if [ -f "$d/$n" ] && [ ! -h "$d/$n" ]; then
    s=$(tail -n +2 -- "$d/$n" | sum); if [ -n "$(lacks "$d/$n")" ]; then s={LACKS}; fi; echo "$s $n"; fi;; esac; done
"""
"""The names on standard input; of each the sha256 of its payload, or LACKS where a part of it is missing or damaged."""

LACKING = f"""\
{_COMMON}
if [ -h "$d/parts" ]; then echo "$d/parts is a symbolic link" >&2; exit {IN_THE_WAY}; fi
while read -r n k; do kept "$n" "$k" || echo "$n"; done
"""
"""Names and sizes of parts on standard input; those that are missing or damaged."""

STORE_PART = f"""\
{_COMMON}
if [ -h "$d/parts" ]; then echo "$d/parts is a symbolic link" >&2; exit {IN_THE_WAY}; fi
if [ -e "$d/parts" ] && [ ! -d "$d/parts" ]; then echo "$d/parts is no directory" >&2; exit {IN_THE_WAY}; fi
[ -d "$d" ] || {{ (umask 022; mkdir -p -- "${{d%/*}}"); mkdir -m 700 -- "$d"; }}
[ -d "$d/parts" ] || mkdir -m 700 -- "$d/parts"
find "$d" -name '{TEMPORARY}*' -mmin +60 -exec rm -f -- {{}} + 2>/dev/null || :
{_WRITTEN}
k=$(size "$t"); if [ "$k" -ne "$3" ]; then echo "only a part of it came" >&2; exit 1; fi
flush "$t"; mv -f -- "$t" "$d/parts/$2"; trap - EXIT; flush "$d/parts"
if good "$2" "$3"; then echo stored; else echo "it does not read back as it was sent" >&2; exit 1; fi
"""
"""$2 its name, $3 its size; the part on standard input."""
