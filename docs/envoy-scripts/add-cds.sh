#!/bin/sh
# add-cds.sh -cname abc1
. "${0%/*}/lib.sh"
mkdir -p "$data/endpoints/$cname"
say_endpoints
type=type.googleapis.com/envoy.config.cluster.v3.Cluster
source="{\"path\":\"$data/eds/$cname.json\",\"watched_directory\":{\"path\":\"$data/eds\"}}"
cat > "$data/clusters/$cname" <<JSON
{"@type":"$type","name":"$cname","type":"EDS","connect_timeout":"2s",
 "eds_cluster_config":{"eds_config":{"resource_api_version":"V3","path_config_source":$source}}}
JSON
say_clusters
wait_until has_cluster
