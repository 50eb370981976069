"""What holds a lock on a host: POSIX sh with flock and timeout, run on a channel of the connection that does the work.

It answers `held`, after lines of the kernel's socket tables where asked; or `busy` and the holder's record, `denied`,
`missing PROGRAM`. Then it reads a byte every few seconds: `.` is a heartbeat (echoed), `r` a release. At silence, or at
the end of its input, it stops the connection's sshd session, kills whatever runs under it or carries its mark, waits
until that is gone, kills the session, and ends: so the lock is free only when nothing can act in its name any more.

Why so:
- `9<>`, since `9>` would wipe the holder's record before the lock is had.
- Every child closes 9: the lock must not live on in a child of a killed holder.
- `dd` under `timeout`, since not every sh has `read -t`.
- Handlers, not SIG_IGN, which children would inherit: `timeout` could then end nothing.
- The session is stopped first, so that nothing new starts between looking and killing; a process is taken by its
  descent from the session (also before it is marked) or by its mark (also when it went into the background).
- Zombies count as gone: the stopped session can't reap its own.
"""

from __future__ import annotations

SCRIPT = r"""
LC_ALL=C; export LC_ALL
d=$1 file=$1/$2 record=$3 mark=$4 silence=$5 tries=$6 mode=$7
unset K4T_RUN
trap : HUP INT TERM PIPE

for p in flock timeout; do command -v $p >/dev/null || { echo "missing $p"; exit 0; }; done
[ -d "$d" ] || mkdir -p -- "$d" 2>/dev/null
(: 9<>"$file") 2>/dev/null || { echo denied; exit 0; }
exec 9<>"$file"
until flock -n 9; do
  tries=$((tries - 1))
  if [ "$tries" -le 0 ]; then
    record=; read -r record <"$file"
    printf 'busy %s\n' "$record"; exit 0
  fi
  sleep 0.1 9>&- 2>/dev/null || sleep 1 9>&-
done
printf '%s\n' "$record" >&9

stat() { # PID: sets state, parent, born
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -- ${line##*) }
  state=$1 parent=$2 born=${20}
}
mine=" $$ " up=$$ session= session_born=
while stat "$up" && [ "$parent" -gt 1 ]; do
  up=$parent
  read -r name <"/proc/$up/comm" || break
  case $name in sshd*|dropbear*) stat "$up" && session=$up session_born=$born; break;; esac
  mine="$mine$up "
done

if [ "$mode" = short ]; then
  grep -H ' 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null 9>&-
  grep -H ': ' /proc/net/udp /proc/net/udp6 2>/dev/null 9>&-
fi
echo held
while :; do
  beat=$(exec 9>&-; timeout "$silence" dd bs=1 count=1 2>/dev/null)
  case $beat in
    .) echo . 2>/dev/null;;
    r) exit 0;;
    *) break;;
  esac
done
[ "$mode" = short ] && exit 0

lives() { stat "$1" && [ "$state" != Z ] && [ "$state" != X ]; }
session_lives() { [ -n "$session" ] && lives "$session" && [ "$born" = "$session_born" ]; }
if printf 'a\0b\0' | grep -qzxF b 2>/dev/null; then
  marked() { (exec 9>&-; grep -lszxF -e "$mark" /proc/[0-9]*/environ 2>/dev/null); }
else
  marked() { (exec 9>&-; for f in /proc/[0-9]*/environ; do
    tr '\0' '\n' <"$f" 2>/dev/null | grep -qxF -e "$mark" && echo "$f"; done 2>/dev/null); }
fi
descended() { # all below the session but our own line
  found=" $session " more=1 rounds=0
  while [ -n "$more" ] && [ $rounds -lt 100 ]; do
    more= rounds=$((rounds + 1))
    for p in /proc/[0-9]*; do
      p=${p#/proc/}
      case $found$mine in *" $p "*) continue;; esac
      stat "$p" || continue
      case $found in *" $parent "*) found="$found$p " more=1;; esac
    done
  done
}
victims() { # sets todo
  todo= found=
  session_lives && descended
  for p in $found $(marked); do
    p=${p#/proc/}; p=${p%/environ}
    case "$mine$session " in *" $p "*) continue;; esac
    lives "$p" && [ "$parent" != $$ ] && todo="$todo $p"
  done
}
session_lives && kill -STOP "$session"
rounds=0
while [ $rounds -lt 3000 ]; do
  rounds=$((rounds + 1))
  victims
  if [ -z "$todo" ]; then
    session_lives || break
    kill -KILL "$session" || break
  else
    kill -KILL $todo 2>/dev/null
  fi
  sleep 0.1 9>&- 2>/dev/null || sleep 1 9>&-
done
"""
