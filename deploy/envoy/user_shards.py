#!/usr/bin/env python3
"""Print an Envoy configuration for users in shards: a cluster a shard, chosen by the header x-lowpass-shard.

    python deploy/envoy/user_shards.py --listen 0.0.0.0:50050 s0-a:50051,s0-b:50051 s1-a:50051,s1-b:50051
    envoy -c user-shards.yaml

One argument a shard, in order: its servers, at least two, so that one may die. `user-shards.yaml` beside this file is
what the line above prints. Standard library only: copy it to where Envoy is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

ADDRESS = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")

ROUTE = """\
              - match:
                  prefix: /
                  headers: [{{ name: x-lowpass-shard, string_match: {{ exact: "{shard}" }} }}]
                route: {{ cluster: shard-{shard}, timeout: 0s, max_stream_duration: *longest }}
"""
WEIGHTED = "                      - {{ name: shard-{shard}, weight: 1 }}\n"
CLUSTER = """\
  - name: shard-{shard}
    type: STRICT_DNS  # a name may stand for several servers, as a headless Service does
    lb_policy: LEAST_REQUEST
    connect_timeout: 1s
    typed_extension_protocol_options: *http2
    health_checks: *health
    outlier_detection: *outliers
    circuit_breakers: *breakers
    load_assignment:
      cluster_name: shard-{shard}
      endpoints:
      - lb_endpoints:
{servers}"""
SERVER = "        - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}\n"

CONFIGURATION = """\
# Users in {count} shards of {replicas} servers, made by deploy/envoy/user_shards.py. Plain text: add TLS for strangers.
admin:
  address: {{ socket_address: {{ address: {admin_host}, port_value: {admin_port} }} }}

# The caller's deadline (grpc-timeout) counts; for one without, the longest that a server allows.
!ignore longest: &longest {{ max_stream_duration: 300s, grpc_timeout_header_max: 300s }}

!ignore http2: &http2
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config:
      http2_protocol_options:
        # What a server takes of one connection (--max-concurrent-streams); more calls open more connections.
        max_concurrent_streams: 64
        connection_keepalive: {{ interval: 30s, timeout: 5s }}

# As servers say themselves: loading, ready, about to stop.
!ignore health: &health
- timeout: 1s
  interval: 2s
  no_traffic_interval: 2s
  unhealthy_threshold: 2
  healthy_threshold: 1
  grpc_health_check: {{}}

# And sooner, as calls tell: who cannot be reached, or breaks off, is left out for a while.
!ignore outliers: &outliers
  split_external_local_origin_errors: true
  consecutive_local_origin_failure: 3
  consecutive_gateway_failure: 5
  interval: 1s
  base_ejection_time: 5s
  max_ejection_percent: 50

# Envoy's default, three retries at once, is less than a server that dies has in hand.
!ignore breakers: &breakers
  thresholds:
  - max_requests: 4096
    max_pending_requests: 4096
    retry_budget: {{ budget_percent: {{ value: 25 }}, min_retry_concurrency: 256 }}

static_resources:
  listeners:
  - name: recommender
    address: {{ socket_address: {{ address: {host}, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: recommender
          codec_type: AUTO
          stream_idle_timeout: 300s
          route_config:
            virtual_hosts:
            - name: recommender
              domains: ["*"]
              # Every method only reads, so what has not begun to be answered may be asked again, of the other server.
              # One that is overloaded (RESOURCE_EXHAUSTED) tells its caller when to come back, and is asked no more.
              retry_policy:
                retry_on: connect-failure,refused-stream,reset,unavailable,cancelled
                num_retries: 3
                retry_back_off: {{ base_interval: 0.025s, max_interval: 0.25s }}
                # The server that refuses has the least to do, and LEAST_REQUEST would choose it again and again.
                host_selection_retry_max_attempts: 20
                retry_host_predicate:
                - name: envoy.retry_host_predicates.previous_hosts
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
              routes:
{routes}\
              # Histories, items, info: any shard. For a user without the header, NOT_FOUND names the shard.
              - match: {{ prefix: / }}
                route:
                  timeout: 0s
                  max_stream_duration: *longest
                  weighted_clusters:
                    clusters:
{weighted}\
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
{clusters}"""


def read_address(text: str, least_port: int = 0) -> tuple[str, int]:
    """Read `HOST:PORT`, or `[HOST]:PORT` for IPv6.

    Args:
        text: What was given.
        least_port: 0 is any free port of one to listen on; servers have one from 1 on.

    Returns:
        The host as YAML has it, and the port.

    Raises:
        ValueError: It is none.
    """
    found = ADDRESS.fullmatch(text)
    if not found or not least_port <= int(found["port"]) <= 65535:
        raise ValueError(f"{text!r}: give HOST:PORT, or [HOST]:PORT for IPv6, a port from {least_port} to 65535")
    return found["name"] or f'"{found["ipv6"]}"', int(found["port"])


def read_shards(texts: Sequence[str]) -> list[list[tuple[str, int]]]:
    """Read the servers of each shard.

    Raises:
        ValueError: One is no address, or stands twice: it has the users of one shard.
    """
    shards = [[read_address(server, 1) for server in text.split(",")] for text in texts]
    servers = [server for shard in shards for server in shard]
    for host, port in servers:
        if servers.count((host, port)) > 1:
            raise ValueError(f"'{host}:{port}' stands twice: give each server once, in its own shard")
    return shards


def configure(shards: Sequence[Sequence[tuple[str, int]]], listen: tuple[str, int], admin: tuple[str, int]) -> str:
    """Make the configuration.

    Args:
        shards: The servers of each shard, by number.
        listen: Where callers come in.
        admin: Where Envoy's own pages are; not for strangers.
    """
    clusters = [
        CLUSTER.format(shard=shard, servers="".join(SERVER.format(host=host, port=port) for host, port in servers))
        for shard, servers in enumerate(shards)
    ]
    return CONFIGURATION.format(
        count=len(shards),
        replicas=" or ".join(str(count) for count in sorted({len(servers) for servers in shards})),
        host=listen[0],
        port=listen[1],
        admin_host=admin[0],
        admin_port=admin[1],
        routes="".join(ROUTE.format(shard=shard) for shard in range(len(shards))),
        weighted="".join(WEIGHTED.format(shard=shard) for shard in range(len(shards))),
        clusters="".join(clusters),
    )


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+", metavar="HOST:PORT,HOST:PORT", help="The servers of a shard.")
    parser.add_argument("--listen", default="127.0.0.1:50050", help="Where callers come in (default: %(default)s).")
    parser.add_argument("--admin", default="127.0.0.1:9901", help="Envoy's own pages (default: %(default)s).")
    given = parser.parse_args()
    if len(given.shards) < 2:
        parser.error("give the servers of two shards at least")
    try:
        made = configure(read_shards(given.shards), read_address(given.listen), read_address(given.admin))
    except ValueError as error:
        parser.error(str(error))
    print(made, end="")  # noqa: T201


if __name__ == "__main__":
    main()
