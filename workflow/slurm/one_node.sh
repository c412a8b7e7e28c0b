#!/bin/sh
# A SLURM cluster of this one machine, for trying the workflow out; as root, on Debian or Ubuntu.
#
#   sh workflow/slurm/one_node.sh start     install if need be, configure, start, wait until idle
#   sh workflow/slurm/one_node.sh stop      end the daemons that `start` started
#
# It needs neither systemd nor cgroups nor a database. An installed slurm.conf that is not from here
# is left alone, and `start` refuses.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
state=${STATE:-/var/lib/slurm-trial}
conf=/etc/slurm/slurm.conf
mark="# A cluster of one node for trying the workflow out"

stop() {
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$state/$daemon.pid" 2>/dev/null || true)
        [ -n "$pid" ] && kill "$pid" 2>/dev/null && echo "$daemon stopped"
        rm -f "$state/$daemon.pid"
    done
}

start() {
    if [ -f "$conf" ] && ! grep -q "^$mark" "$conf"; then
        echo "$conf is there and not from this script: this machine has a cluster already" >&2
        exit 1
    fi
    if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
    fi
    mkdir -p "$state/ctld" "$state/d" "$(dirname "$conf")"

    [ -s /etc/munge/munge.key ] || mungekey --create
    mkdir -p /run/munge /var/log/munge
    chown -R munge:munge /run/munge /var/log/munge /etc/munge
    chmod 755 /run/munge
    mkdir -p "$state/munge" && chown munge:munge "$state/munge"
    su -s /bin/sh munge -c "munged --force --pid-file=$state/munge/munged.pid" || true
    cp "$state/munge/munged.pid" "$state/munged.pid"
    munge -n | unmunge >/dev/null

    memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    sed -e "s|@HOST@|$(hostname -s)|g" -e "s|@STATE@|$state|g" -e "s|@CPUS@|$(getconf _NPROCESSORS_ONLN)|" \
        -e "s|@MEMORY@|$memory|" "$here/slurm.conf.in" >"$conf"
    slurmctld -c  # -c: without the jobs of an earlier trial
    slurmd
    for _ in $(seq 30); do
        [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && break
        sleep 1
    done
    sinfo
    [ "$(sinfo -h -o %T)" = idle ]
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*)
    echo "usage: sh $0 start|stop" >&2
    exit 2
    ;;
esac
