#!/bin/sh
# Starts and stops a local nats-server and Consul for development, with their data below dev/ in the project.
#
#   scripts/servers.sh start | stop | status
#
# NATS listens on 127.0.0.1:${NATS_PORT:-4222} with JetStream, Consul's HTTP on 127.0.0.1:${CONSUL_PORT:-8500}.
# The programs are those of scripts/fetch-servers.sh, which is run first. Starting twice does nothing the second time;
# only processes that this script started are stopped.
set -eu

project=$(cd "$(dirname "$0")/.." && pwd)
tools=${MPCIUM_TOOLS:-$project/.tools}
state=${MPCIUM_DEV:-$project/dev}/servers
nats_port=${NATS_PORT:-4222}
consul_port=${CONSUL_PORT:-8500}

say() { printf 'servers: %s\n' "$*"; }
fail() { printf 'servers: %s\n' "$*" >&2; exit 1; }

# running NAME: the process in our record lives, and is still that program (numbers are reused).
running() {
    pid=$(cat "$state/$1.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
    [ ! -r "/proc/$pid/cmdline" ] || tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1"
}

wait_for() { # wait_for NAME COMMAND...
    name=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        running "$name" || { tail -n 5 "$state/$name.log" >&2; fail "$name ended; its log is $state/$name.log"; }
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "$name does not answer; its log is $state/$name.log"
        sleep 0.1
    done
}

nats_is_ready() { grep -q 'Server is ready' "$state/nats-server.log"; }
consul_is_ready() { "$tools/bin/consul" info -http-addr="127.0.0.1:$consul_port" | grep -q 'leader = true'; }

start_one() { # start_one NAME COMMAND...
    name=$1
    shift
    if running "$name"; then
        say "$name is running already (process $(cat "$state/$name.pid"))"
        return 0
    fi
    nohup "$@" >"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$state/$name.pid"
}

stop_one() {
    if running "$1"; then
        pid=$(cat "$state/$1.pid")
        kill "$pid"
        tries=0
        while kill -0 "$pid" 2>/dev/null; do
            tries=$((tries + 1))
            [ "$tries" -lt 100 ] || { kill -9 "$pid" 2>/dev/null || true; break; }
            sleep 0.1
        done
        say "$1 stopped"
    fi
    rm -f "$state/$1.pid"
}

case ${1:-} in
    start)
        "$project/scripts/fetch-servers.sh"
        mkdir -p "$state"
        start_one nats-server "$tools/bin/nats-server" -a 127.0.0.1 -p "$nats_port" -js -sd "$state/jetstream"
        start_one consul "$tools/bin/consul" agent -server -bootstrap -bind 127.0.0.1 -client 127.0.0.1 \
            -data-dir "$state/consul" -http-port "$consul_port" -dns-port -1 \
            -server-port "$((consul_port - 200))" -serf-lan-port "$((consul_port - 199))" \
            -serf-wan-port "$((consul_port - 198))"
        wait_for nats-server nats_is_ready
        wait_for consul consul_is_ready
        say "NATS at nats://127.0.0.1:$nats_port, Consul at http://127.0.0.1:$consul_port"
        ;;
    stop)
        stop_one nats-server
        stop_one consul
        ;;
    status)
        for name in nats-server consul; do
            if running "$name"; then say "$name runs (process $(cat "$state/$name.pid"))"; else say "$name does not run"; fi
        done
        ;;
    *) fail "usage: $0 start | stop | status" ;;
esac
