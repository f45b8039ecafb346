#!/bin/sh
# Starts Valkey or Redis as the cache, with a user for each role; compose.yaml runs
# this script. Passwords are environment variables. The configuration is passed on
# standard input, so that the process list shows no password. Arguments of this script
# override the settings below.
set -eu

# The commands of the cache. The roles read and fill entries with scripts. Scripts
# have the permissions of the user that calls them.
cache="~reading_session:* +ping +client|setinfo +evalsha +script|load +time \
+get +mget +set +unlink +scan"

# The counters of calls, for processes that serve the API or the admin API.
limits="(~rate_limit:* +evalsha +get +set +incrby +pexpire +pttl)"

# The exporter reads counters and latencies. It may not read the slow log, because that
# contains keys of readers.
monitor="+ping +info +slowlog|len +latency|latest +latency|histogram"

# volatile-lru evicts only keys with a TTL, which keeps the checkpoint. The user
# `default` is a client that names no user.
exec "${REDIS_SERVER:-valkey-server}" - "$@" <<CONFIG
save ""
appendonly no
maxmemory 192mb
maxmemory-policy volatile-lru
tcp-keepalive 60
user default reset
user api on >${REDIS_API_PASSWORD:?} $cache $limits
user projections on >${REDIS_PROJECTIONS_PASSWORD:?} $cache
user jobs on >${REDIS_JOBS_PASSWORD:?} $cache $limits
user operator on >${REDIS_OPERATOR_PASSWORD:?} $cache +info
user monitor on >${REDIS_MONITOR_PASSWORD:?} $monitor
CONFIG
