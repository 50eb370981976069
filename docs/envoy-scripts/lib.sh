# Read by the others: their arguments, and the files that Envoy watches.
#
#   $data/clusters/CNAME           $data/endpoints/CNAME/IP_PORT      $data/routes/DOMAINS/PREFIX   what was said
#   $data/cds/cds.json             $data/eds/CNAME.json               $data/rds/rds.json            what Envoy reads
set -eu
data=/var/lib/envoy-scripts
admin=127.0.0.1:9901

while [ $# -gt 0 ]; do
    case $1 in
        -cname) cname=$2 ;;
        -ip) ip=$2 ;;
        -port) port=$2 ;;
        -prefix) prefix=$2 ;;
        -domains) domains=$2 ;;
        *) echo "no such argument: $1" >&2; exit 64 ;;
    esac
    shift 2
done

mkdir -p "$data/clusters" "$data/endpoints" "$data/routes" "$data/cds" "$data/eds" "$data/rds" "$data/new"

word() { printf '%s' "$1" | sed 's/[^A-Za-z0-9.*,-]/_/g'; }

say() { # KIND NAME RESOURCES: written outside, renamed in
    printf '{"resources":[%s]}\n' "$3" > "$data/new/$2.json"
    mv "$data/new/$2.json" "$data/$1/$2.json"
}

joined() { # the contents of files, with commas between
    first=1
    for file; do
        [ -f "$file" ] || continue
        [ $first = 1 ] || printf ','
        cat "$file"
        first=0
    done
}

say_clusters() { say cds cds "$(joined "$data"/clusters/*)"; }

say_endpoints() {
    listed=$(joined "$data/endpoints/$cname"/*)
    type=type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    say eds "$cname" "{\"@type\":\"$type\",\"cluster_name\":\"$cname\",\"endpoints\":[{\"lb_endpoints\":[$listed]}]}"
}

say_routes() {
    hosts=
    for host in "$data"/routes/*; do
        [ -d "$host" ] || continue
        names=$(basename "$host" | sed 's/,/","/g')
        hosts="$hosts${hosts:+,}{\"name\":\"$(basename "$host")\",\"domains\":[\"$names\"],\"routes\":[$(joined "$host"/*)]}"
    done
    type=type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    say rds rds "{\"@type\":\"$type\",\"name\":\"routes\",\"virtual_hosts\":[$hosts]}"
}

wait_until() { # COMMAND…: what Envoy says on its admin page, for 5 s
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        if "$@"; then return 0; fi
        sleep 0.2
    done
    echo "Envoy does not show it after 5 s: $*" >&2
    exit 1
}

page() { curl -sf --max-time 3 "http://$admin/$1"; }
has_cluster() { page clusters | grep -q "^$cname::"; }
no_cluster() { ! has_cluster; }
has_endpoint() {
    case $ip in *:*) shown="[$ip]" ;; *) shown=$ip ;; esac
    page clusters | grep -qF "$cname::$shown:$port::"
}
no_endpoint() { page clusters > /dev/null && ! has_endpoint; }
