#!/bin/sh
# del-eds.sh -cname abc1 -ip 1.2.3.4 -port 80
. "${0%/*}/lib.sh"
rm -f "$data/endpoints/$cname/$(word "$ip")_$port"
[ -d "$data/endpoints/$cname" ] || exit 0
say_endpoints
wait_until no_endpoint
