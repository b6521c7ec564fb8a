#!/bin/sh
# Installs the Debian packages the testbed runs on, and nothing else happens to the machine: no service is started,
# enabled, reloaded or reconfigured, and no installed package is upgraded. Does nothing, and asks for no root, when all
# of them are there. Knows nothing of Python's packages: that is ./lab.
#   vagrant/provision.sh            install what is missing
#   vagrant/provision.sh --missing  only name what is missing
# Exit status: 0 all there, 4 this machine cannot have them.
set -eu

# package:program, the program being how a machine without dpkg shows that it has it
wanted='
frr:/usr/lib/frr/zebra
frr-pythontools:/usr/lib/frr/frr-reload.py
haproxy:haproxy
iptables:iptables-restore
nftables:nft
conntrack:conntrack
ipset:ipset
tcpdump:tcpdump
nfdump:nfdump
tcpreplay:tcpreplay
iperf3:iperf3
iproute2:ip
iputils-ping:ping
util-linux:unshare
procps:ps
python3:python3
python3-venv:python3
redis-server:redis-server
redis-tools:redis-cli
dnsmasq-base:dnsmasq
bind9-dnsutils:dig
nginx:nginx
curl:curl
openssl:openssl
zstd:zstd
ca-certificates:update-ca-certificates
shellcheck:shellcheck
mininet:mnexec
openvswitch-switch:ovs-vswitchd
'

fail() {
    echo "provision: $*" >&2
    exit 4
}

os_release() {
    # shellcheck source=/dev/null
    (. "${LAB_OS_RELEASE:-/etc/os-release}" && printf '%s %s\n' "${ID:-unknown}" "${VERSION_ID:-unknown}")
}

installed() {
    if command -v dpkg-query >/dev/null; then
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    else
        PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null
    fi
}

missing() {
    for pair in $wanted; do
        installed "${pair%%:*}" "${pair#*:}" || printf '%s ' "${pair%%:*}"
    done
}

# Stands in, while packages are configured, for every program with which a package's script could reach a service.
# `was-enabled` answers no, so that nothing is enabled; `update-state` goes through, so that a later upgrade of the
# package finds the service on record as one that this machine's owner did not enable.
make_shims() {
    real_helper=$(command -v deb-systemd-helper || true)
    for name in deb-systemd-invoke invoke-rc.d update-rc.d systemctl service rc-update initctl; do
        printf '#!/bin/sh\nexit 0\n' >"$1/$name"
    done
    cat >"$1/deb-systemd-helper" <<SHIM
#!/bin/sh
for word; do
    case \$word in
        was-enabled|is-enabled|debian-installed) exit 1 ;;
        update-state) if [ -n "$real_helper" ]; then exec "$real_helper" "\$@"; fi ;;
    esac
done
exit 0
SHIM
    chmod 755 "$1"/*
    # On a file system mounted noexec a shim would be passed over and the real program found instead.
    "$1/systemctl" || fail "cannot run programs from $1: set TMPDIR to a directory that is not mounted noexec"
}

install_packages() {
    shims=$(mktemp -d)
    trap 'rm -rf "$shims"' EXIT
    trap 'exit 130' INT TERM
    make_shims "$shims"
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none
    apt-get -q -o DPkg::Lock::Timeout=300 update || fail "apt-get update failed: no package list to install from"
    # shellcheck disable=SC2086  # the names are words
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o "DPkg::Path=$shims:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        install --no-install-recommends --no-upgrade --no-remove "$@" </dev/null || fail "apt-get could not install: $*"
}

system=$(os_release)
# Ubuntu's chromium package is a door to a snap, and it has no User-mode Linux: what needs them says so there.
case $system in debian*) wanted="$wanted chromium:chromium" ;; esac
# It exists for x86 only, loads its modules with kmod, and on a processor with AMX needs a shim that gcc makes.
case $system-$(uname -m) in debian*-x86_64) wanted="$wanted user-mode-linux:linux.uml kmod:modprobe gcc:gcc" ;; esac
lacking=$(missing)
if [ "${1:-}" = --missing ]; then
    echo "$lacking"
    exit 0
fi
[ -n "$lacking" ] || exit 0

case $system in
    "debian 12" | "debian 13" | "ubuntu 24.04") ;;
    *) fail "this is $system; supported are Debian 12, Debian 13 and Ubuntu 24.04. Missing here: $lacking" ;;
esac
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "run vagrant/provision.sh as root first (there is no sudo). Missing: $lacking"
    echo "provision: asking sudo to install: $lacking" >&2
    exec sudo -- env TMPDIR="${TMPDIR:-/tmp}" sh "$0"
fi
# shellcheck disable=SC2086  # the names are words
install_packages $lacking
