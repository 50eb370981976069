#!/bin/sh
# del-rds.sh -cname abc1 -prefix / -domains example.com,www.example.com: unless it is another app's by now
. "${0%/*}/lib.sh"
file="$data/routes/$domains/$((1000 - ${#prefix}))$(word "$prefix")"
if [ -f "$file" ] && grep -qF "\"cluster\":\"$cname\"" "$file"; then rm -f "$file"; fi
rmdir "$data/routes/$domains" 2> /dev/null || true
say_routes
