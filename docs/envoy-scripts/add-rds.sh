#!/bin/sh
# add-rds.sh -cname abc1 -prefix / -domains example.com,www.example.com: the longest prefix of a domain comes first
. "${0%/*}/lib.sh"
mkdir -p "$data/routes/$domains"
order=$((1000 - ${#prefix}))
printf '{"match":{"prefix":"%s"},"route":{"cluster":"%s"}}' "$prefix" "$cname" \
    > "$data/routes/$domains/$order$(word "$prefix")"
say_routes
