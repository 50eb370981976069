#!/bin/sh
# list.sh: what Envoy really has, one `CNAME IP PORT` a line
. "${0%/*}/lib.sh"
found=$(page clusters) || { echo "Envoy does not answer at $admin" >&2; exit 1; }
printf '%s\n' "$found" | sed -n 's/^\([^:]*\)::\(.*\):\([0-9]*\)::health_flags::.*/\1 \2 \3/p'
