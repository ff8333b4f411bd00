# shellcheck shell=bash
# net.sh: the lab's network. All of it is inside namespaces: a switch (bridge sw0 in one of its
# own), on it one port per host, named as the host, and one for the observer. In a host the other
# end is up0, in the host's bridge br0, which has the host's address and which guests' taps join.
# Sourced by lab/lab.

NET_OBSERVER=2     # last byte of the observer's address
NET_HOST_BASE=11   # of hosta's; hostb has the next, and so on
NET_BURST_MS=5     # tbf's bucket: enough that a late timer does not cost rate
NET_BURST_MIN=16384
NET_QUEUE_MS=20    # what waits at most; longer queues would only add delay for everybody

# net_subnet: sets REPLY to the lab's first three bytes, from its name. That two labs may get the
# same does no harm: their networks never meet.
net_subnet()
{
    local sum
    sum=$(printf %s "$LAB_NAME" | cksum)
    sum=${sum%% *}
    REPLY=10.$((200 + sum % 50)).$((sum / 50 % 250))
}

# net_address NAME: sets REPLY to the address of a host or of the observer.
net_address()
{
    local last=$NET_OBSERVER
    [ "$1" = observer ] || {
        printf -v last %d "'${1#host}"
        last=$((last - 97 + NET_HOST_BASE))
    }
    REPLY=$(<"$LAB/subnet").$last
}

# net_mac NAME: sets REPLY to a MAC address that stays the same; a bridge without one of its own
# changes its address when a guest's tap joins.
net_mac()
{
    local address
    net_address "$1"
    IFS=. read -r -a address <<<"$REPLY"
    printf -v REPLY '02:7a:%02x:%02x:%02x:%02x' "${address[@]}"
}

# in_net NAME COMMAND...: runs one of the machine's programs in the network of a host or the switch.
in_net()
{
    pid_live "$LAB/$1/init" || die "$1 is not up"
    shift
    nsenter --target "$REPLY" --net -- "$@"
}

net_switch_up()
{
    in_net switch ip -batch - <<'END'
link set lo up
link add sw0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set sw0 up
END
}

# net_plug NAME INTERFACE: a cable from the switch's port NAME to INTERFACE in NAME's network.
net_plug()
{
    local init
    pid_live "$LAB/$1/init" || die "$1 is not up"
    init=$REPLY
    # A host that crashed leaves its port behind for as long as the kernel takes to end its network.
    in_net switch ip link del "$1" 2>/dev/null || :
    in_net switch ip -batch - <<END
link add $1 type veth peer name $2 netns $init
link set $1 master sw0 up
END
}

net_observer_up()
{
    net_plug observer eth0
    net_address observer
    in_net observer ip -batch - <<END
link set lo up
link set eth0 up
address add $REPLY/24 brd + dev eth0
END
}

net_host_up()
{
    local mac
    net_plug "$1" up0
    net_mac "$1"
    mac=$REPLY
    net_address "$1"
    in_net "$1" ip -batch - <<END
link set lo up
link add br0 address $mac type bridge stp_state 0 forward_delay 0 mcast_snooping 0
link set up0 master br0 up
link set br0 up
address add $REPLY/24 brd + dev br0
END
    [ ! -e "$LAB/shape" ] || net_shape "$1" "$(<"$LAB/shape")"
}

# net_rate_bytes RATE: sets REPLY to a rate such as 1gbit in bytes per second; fails if it is none.
net_rate_bytes()
{
    [[ $1 =~ ^([1-9][0-9]{0,5})(k|m|g)?bit$ ]] || return 1
    case ${BASH_REMATCH[2]} in
    k) REPLY=$((BASH_REMATCH[1] * 125)) ;;
    m) REPLY=$((BASH_REMATCH[1] * 125000)) ;;
    g) REPLY=$((BASH_REMATCH[1] * 125000000)) ;;
    *) REPLY=$((BASH_REMATCH[1] / 8)) ;;
    esac
}

# net_shape HOST RATE|none: shapes both directions of a host's uplink.
net_shape()
{
    local burst tbf
    in_net "$1" tc qdisc del dev up0 root 2>/dev/null || :
    in_net switch tc qdisc del dev "$1" root 2>/dev/null || :
    [ "$2" != none ] || return 0
    net_rate_bytes "$2"
    burst=$((REPLY * NET_BURST_MS / 1000))
    [ "$burst" -ge "$NET_BURST_MIN" ] || burst=$NET_BURST_MIN
    tbf=(root tbf rate "$2" burst "$burst" latency "${NET_QUEUE_MS}ms")
    in_net "$1" tc qdisc add dev up0 "${tbf[@]}"
    in_net switch tc qdisc add dev "$1" "${tbf[@]}"
}

cmd_shape()
{
    local host
    [ $# = 1 ] || die "usage: lab shape RATE|none, where RATE is such as 1gbit or 100mbit"
    [ "$1" = none ] || net_rate_bytes "$1" || die "'$1' is not a rate such as 1gbit or 100mbit"
    need_lab
    lock_dir 9 "$LAB_STATE"
    if [ "$1" = none ]; then rm -f "$LAB/shape"; else echo "$1" >"$LAB/shape"; fi
    for host in $(<"$LAB/names"); do
        ! pid_live "$LAB/$host/init" || net_shape "$host" "$1"
    done
}

# cmd_path: unlike a cable, it is cut for the hosts alone and one way: their guests and the observer
# still hear each other. Needs no more of the kernel than u32 and mirred: what is sent to a device
# that is down is lost.
cmd_path()
{
    [ $# = 3 ] && { [ "$3" = cut ] || [ "$3" = heal ]; } || die "usage: lab path FROM TO cut|heal"
    need_host "$1"
    need_host "$2"
    net_address "$1"
    local number=${REPLY##*.}
    in_net switch tc filter del dev "$2" egress pref "$number" 2>/dev/null || :
    [ "$3" = cut ] || return 0
    in_net switch ip link add nowhere type bridge 2>/dev/null || :
    in_net switch tc qdisc add dev "$2" clsact 2>/dev/null || :
    net_mac "$1"
    in_net switch tc filter add dev "$2" egress protocol all pref "$number" \
        u32 match ether src "$REPLY" action mirred egress redirect dev nowhere
}

cmd_link()
{
    [ $# = 2 ] && { [ "$2" = up ] || [ "$2" = down ]; } || die "usage: lab link HOST up|down"
    need_host "$1"
    in_net switch ip link set "$1" "$2"
}
