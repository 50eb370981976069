#!/bin/sh
# add-eds.sh -cname abc1 -ip 1.2.3.4 -port 80
. "${0%/*}/lib.sh"
printf '{"endpoint":{"address":{"socket_address":{"address":"%s","port_value":%s}}}}' "$ip" "$port" \
    > "$data/endpoints/$cname/$(word "$ip")_$port"
say_endpoints
wait_until has_endpoint
