#!/bin/sh
# del-cds.sh -cname abc1: its endpoints go with it
. "${0%/*}/lib.sh"
rm -rf "$data/clusters/$cname" "$data/endpoints/$cname"
say_clusters
wait_until no_cluster
rm -f "$data/eds/$cname.json"
