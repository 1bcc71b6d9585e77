#!/bin/sh
# A development cluster on this machine: nats-server, Consul and the nodes of a folder made by `make gen-configs`.
#
#   cluster.sh start DIR    starts what does not run yet and waits until every node is ready
#   cluster.sh stop DIR     stops everything that start started
#   cluster.sh logs DIR     follows all logs
#
# Process ids are kept in DIR/run, logs in DIR/logs, NATS's streams in DIR/nats. Consul keeps nothing: the nodes are
# registered at each start. MPCIUM names the program, MPCIUM_TOOLS the folder with the servers (see fetch-servers.sh);
# PRIMES names a file of safe primes for tests. Starting twice starts what is missing; a start that fails leaves running
# what runs, for `stop` to stop.
set -eu

project=$(cd "$(dirname "$0")/../.." && pwd)
bin=${MPCIUM_TOOLS:-$project/.tools}/bin
mpcium=${MPCIUM:-$project/target/debug/mpcium}
patience=60 # seconds

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

[ $# -eq 2 ] || fail "usage: $0 start|stop|logs DIR"
[ -f "$2/config.yaml" ] || fail "$2 holds no cluster: run \`make gen-configs\` first"
dir=$(cd "$2" && pwd)
run=$dir/run
logs=$dir/logs
mkdir -p "$run" "$logs"

nats_url=$(sed -n 's/^ *url: *//p' "$dir/config.yaml")
consul_address=$(sed -n 's/^ *address: *//p' "$dir/config.yaml")
nodes() { for folder in "$dir"/node*/; do basename "$folder"; done; }

# What a process began with: its number alone may belong to somebody else after a restart of the machine.
# (One that has ended and that nobody has asked about yet is not there any more.)
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# NAME.pid holds the process id alone, for whoever wants to kill it; NAME.began when it began.
alive() {
    [ -f "$run/$1.pid" ] && [ -f "$run/$1.began" ] || return 1
    read -r pid <"$run/$1.pid" && read -r at <"$run/$1.began" || return 1
    [ "$(began "$pid")" = "$at" ]
}

forget() { rm -f "$run/$1.pid" "$run/$1.began"; }

# Waits until a command succeeds; gives up when the process $1 has ended or patience is over.
wait_until() { # wait_until NAME WHAT COMMAND...
    name=$1
    what=$2
    shift 2
    deadline=$(($(date +%s) + patience))
    until "$@" >/dev/null 2>&1; do
        alive "$name" || { tail -n 5 "$logs/$name.log" >&2; fail "$name has ended while waiting for its $what"; }
        [ "$(date +%s)" -lt "$deadline" ] || fail "$name: no $what within $patience s, see $logs/$name.log"
        sleep 0.1
    done
}

# Whether somebody listens on a TCP port of the loopback or of every interface.
taken() {
    hex=$(printf '%04X' "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { found = 1 } END { exit !found }'
}

must_be_free() { # must_be_free NAME PORT VARIABLE
    if taken "$2"; then
        fail "port $2, which $1 needs, is taken by another process. Stop that one, or make a cluster on another port:
  make gen-configs DEV=other $3=PORT && make start-dev DEV=other"
    fi
}

launch() { # launch NAME FOLDER COMMAND...
    name=$1
    folder=$2
    shift 2
    : >"$logs/$name.log"
    (
        cd "$folder"
        # A group of its own: Ctrl-C in this terminal is not for the servers.
        exec setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null
    ) &
    began $! >"$run/$name.began"
    printf '%s\n' "$!" >"$run/$name.pid"
}

start() {
    [ -x "$mpcium" ] || fail "$mpcium is missing: run \`make build\` first"
    for server in nats-server consul; do
        [ -x "$bin/$server" ] || fail "$bin/$server is missing: run \`make servers\` first"
    done
    if alive nats; then say "nats      runs already"; else
        port=${nats_url##*:}
        must_be_free nats-server "$port" NATS_PORT
        launch nats "$dir" "$bin/nats-server" -js -sd "$dir/nats" -a 127.0.0.1 -p "$port"
        wait_until nats "listener" grep -q 'Server is ready' "$logs/nats.log"
        say "nats      $nats_url"
    fi
    if alive consul; then say "consul    runs already"; else
        port=${consul_address##*:}
        for needed in "$port" $((port + 1)) $((port + 2)); do must_be_free consul "$needed" CONSUL_PORT; done
        launch consul "$dir" "$bin/consul" agent -dev -log-level=warn -bind 127.0.0.1 -client 127.0.0.1 \
            -http-port="$port" -dns-port=-1 -grpc-port=-1 \
            -serf-lan-port=$((port + 1)) -serf-wan-port=-1 -server-port=$((port + 2))
        wait_until consul "leader" registered
        say "consul    http://$consul_address"
    fi
    for node in $(nodes); do
        if alive "$node"; then
            say "$node     runs already"
        else
            launch "$node" "$dir/$node" "$mpcium" start -n "$node" ${PRIMES:+--primes "$PRIMES"}
        fi
    done
    for node in $(nodes); do
        wait_until "$node" "[READY] line" grep -qF '[READY] Node is ready' "$logs/$node.log"
        say "$node     ready"
    done
    if grep -q '^ecdsa_protocol: *dkls23' "$dir"/node*/config.yaml; then
        preparation="some seconds"
    else
        preparation="of safe primes: a minute or two"
    fi
    cat <<HINT

Ed25519 works at once; ECDSA signatures wait until the nodes have made their auxiliary data ($preparation).
Try, in $dir:
  $mpcium wallet create my-wallet
  $mpcium sign -w my-wallet -k ed25519 -m hello
  $mpcium sign -w my-wallet -k secp256k1 -m hello
and in $dir/node0:
  $mpcium status -n node0
  $mpcium doctor -n node0
HINT
}

# Registering succeeds once Consul has a leader.
registered() { (cd "$dir" && "$mpcium" register-peers -p peers.json); }

ask_to_stop() {
    if alive "$1"; then
        kill "$pid" 2>/dev/null || true
    else
        forget "$1"
    fi
}

wait_for_end() {
    [ -f "$run/$1.pid" ] || return 0
    deadline=$(($(date +%s) + 20))
    while alive "$1"; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            say "$1 did not stop by itself and is killed"
            kill -9 "$pid" 2>/dev/null || true
            deadline=$(($(date +%s) + 20))
        fi
        sleep 0.1
    done
    forget "$1"
    say "$1 stopped"
}

stop() {
    # The nodes at once, since each drains for a while; the servers when no node needs them any more.
    for name in $(nodes); do ask_to_stop "$name"; done
    for name in $(nodes); do wait_for_end "$name"; done
    for name in consul nats; do ask_to_stop "$name"; wait_for_end "$name"; done
}

case $1 in
    start) start ;;
    stop) stop ;;
    logs)
        set -- "$logs"/*.log
        [ -f "$1" ] || fail "there are no logs in $logs yet: run \`make start-dev\` first"
        exec tail -n 20 -F "$@"
        ;;
    *) fail "usage: $0 start|stop|logs DIR" ;;
esac
