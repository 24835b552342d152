#!/bin/sh
# bench/ladder.sh RUNG [RATE...] - rung bench ladder on real links: one rank, two ranks over shared memory, two ranks in
# two network namespaces joined by a veth pair whose rate is limited by tc tbf (default rates: 1gbit 4gbit 10gbit), with
# MPI over TCP. Options for rung in $OPTIONS (--json, --parallel progress=thread). Needs root and iproute2 for the links.
# LINKS_ONLY=1: only these. SIMULATED="2 4": rates in Gbit/s that are simulated over shared memory. RUNG_CPU=avx2: modules
# compute half as fast, messages go as they did. PLAIN=1: the machine's own TCP settings instead of those below.
set -eu
rung=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- 1gbit 4gbit 10gbit
a=rung-a-$$ b=rung-b-$$
work=$(mktemp -d)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
clean() {
    ip netns del $a 2>/dev/null || true
    ip netns del $b 2>/dev/null || true
    rm -rf "$work"
}
trap clean EXIT INT TERM

if [ -z "${LINKS_ONLY:-}" ]; then
    taskset -c 0 "$rung" bench ladder -t 1 ${OPTIONS:-}
    mpirun --bind-to core -n 2 "$rung" bench ladder "shared memory" -t 1 ${OPTIONS:-}
fi

for rate in ${SIMULATED:-}; do
    mpirun --bind-to core -n 2 "$rung" bench ladder "simulated:$rate" -t 1 ${OPTIONS:-}
done
[ "$1" != none ] || exit 0

ip netns add $a 2>/dev/null || { echo "SKIP: no network namespaces here (root and iproute2 are needed)" >&2; exit 0; }
ip netns add $b
ip link add veth0 netns $a type veth peer name veth0 netns $b
ip -n $a addr add 10.73.0.1/24 dev veth0
ip -n $b addr add 10.73.0.2/24 dev veth0
ip -n $a addr add fd73::1/64 dev veth0 nodad
ip -n $b addr add fd73::2/64 dev veth0 nodad
# What moves a sum of some MB with little work for the cores that compute: packets of up to 500 kB down to the link (large
# ones exist for IPv6), jumbo frames, buffers that take a whole message at once, no timer for each packet (BBR's pacing).
family=""
burst=256kb # tbf needs at least rate / HZ, and a packet
for ns in $a $b; do
    [ -n "${PLAIN:-}" ] || {
        ip -n $ns link set veth0 mtu 9000 gso_max_size 500000 gro_max_size 500000
        ip netns exec $ns sysctl -qw net.ipv4.tcp_congestion_control=reno net.ipv4.tcp_wmem="4096 16777216 16777216" \
            net.ipv4.tcp_rmem="4096 16777216 16777216"
        family="--mca btl_tcp_disable_family 4"
        burst=512kb
    }
    ip -n $ns link set lo up
    ip -n $ns link set veth0 up
done

# What mpirun calls in place of ssh: HOST COMMAND. The other namespace gets a host name of its own, so that MPI takes it
# for another machine.
cat >"$work/agent" <<AGENT
#!/bin/sh
shift
exec ip netns exec $b unshare --uts sh -c 'hostname rung-b; eval "\$1"' sh "\$*"
AGENT
chmod +x "$work/agent"
for rate in "$@"; do
    for ns in $a $b; do
        ip netns exec $ns tc qdisc replace dev veth0 root tbf rate "$rate" burst $burst latency 50ms 2>"$work/tc" ||
            { echo "SKIP: tc tbf: $(cat "$work/tc")" >&2; exit 0; }
    done
    ip netns exec $a unshare --uts sh -c 'hostname rung-a; exec "$@"' sh \
        mpirun --mca plm_rsh_agent "$work/agent" --mca btl tcp,self --mca pml ob1 --mca btl_tcp_if_include veth0 \
        --mca oob_tcp_if_include veth0 $family --host 10.73.0.1:1,10.73.0.2:1 -n 2 --bind-to none ${RUNG_CPU:+-x RUNG_CPU} \
        sh -c '{ echo -20 >/proc/self/autogroup; } 2>/dev/null; exec taskset -c $OMPI_COMM_WORLD_RANK "$0" "$@"' \
        "$rung" bench ladder "veth $rate, TCP${PLAIN:+, plain}" -t 1 ${OPTIONS:-}
done
