# Other releases of Ceph and of Python than the machine's own. To be sourced, after environment.sh.
#
# A release is a root of its own, laid out once by debootstrap from that suite of Debian, in $RELEASES. Commands run in it in
# namespaces of their own for mounts and processes: all that they mount and start is gone with the first of them, also
# after `kill -9`, and nothing of it is ever seen outside. The network is the machine's.

RELEASES=${RELEASES:-.releases}
RELEASE_NAMES=(trixie sid)  # Ceph 18.2 with Python 3.13, Ceph 20.2 with Python 3.14
RELEASE_PACKAGES=(ceph-mon ceph-mgr ceph-osd ceph-common python3-rados python3-rbd python3-venv e2fsprogs)

# The suites whose outcome depends on the release.
release_suites() {
    local suite
    for suite in tests/contract tests/interop tests/sharing tests/faults; do
        [ ! -d "$suite" ] || echo "$suite"
    done
}

# in_root ROOT COMMAND...: run it there, in /project, below the first process of its namespaces.
ENTER=(
    setpriv --pdeathsig KILL  # when this shell dies
    unshare --mount --pid --fork --kill-child --propagation private
    bash scripts/enter_root.sh
)
in_root() { "${ENTER[@]}" "$@"; }

# in_release NAME COMMAND...: run it there; on a signal end it, with all that it has started, before we end.
in_release() {
    local root=$RELEASES/$1 child status=0
    shift
    "${ENTER[@]}" "$root" "$@" <&0 &
    child=$!
    trap 'kill -KILL "$child"; exit 130' INT
    trap 'kill -KILL "$child"; exit 143' TERM HUP
    wait "$child" || status=$?
    trap - INT TERM HUP
    return "$status"
}

# need_release NAME: its root, with the packages and with this project's requirements in /venv; what is there is used.
need_release() {
    local name=$1 root=$RELEASES/$1
    [[ " ${RELEASE_NAMES[*]} " == *" $name "* ]] || { echo "no release $name: ${RELEASE_NAMES[*]}" >&2; return 1; }
    [ "$(id -u)" = 0 ] || { echo "only root can enter the root of a release" >&2; return 1; }
    have debootstrap || need_packages debootstrap || return
    mkdir -p "$RELEASES"
    (
        flock 9  # two runs at once lay out one root once
        [ -e "$root/complete" ] || lay_out "$name" "$root" || exit
        bring_settings "$root" || exit
        cmp -s pyproject.toml "$root/venv/pyproject.toml" || install_requirements "$root"
    ) 9>"$RELEASES/$name.lock"
}

# install_requirements ROOT: of this project, into /venv there; again only after pyproject.toml has changed.
install_requirements() {
    say "installing the requirements in $1"
    in_root "$1" sh -c 'python3 -m venv --system-site-packages /venv && /venv/bin/pip install --quiet -e ".[test]"' \
        && cp pyproject.toml "$1/venv/"
}

# lay_out NAME ROOT: a new root, complete or not there. The log tells what went wrong.
lay_out() {
    local name=$1 root=$2 log=$RELEASES/$1.log
    say "laying out $name in $root"
    rm -rf "$root"
    { bootstrap "$name" "$root" && bring_settings "$root" && install_ceph "$root"; } >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        return 1
    }
    touch "$root/complete"
}

bootstrap() {
    http_proxy=${http_proxy:-$(apt-config dump --format '%v' Acquire::http::Proxy)} \
        debootstrap --variant=minbase --include=ca-certificates "$1" "$2" || return
    printf '#!/bin/sh\nexit 101\n' > "$2/usr/sbin/policy-rc.d"  # no service is to start in there
    chmod +x "$2/usr/sbin/policy-rc.d"
}

# install_ceph ROOT: whether all is there then. apt's own word says less: a script of a package may have failed that is of
# no use here, as ceph-mon's does in sid.
install_ceph() {
    in_root "$1" sh -c 'apt-get update && apt-get install -y --no-install-recommends "$@"; apt-get clean' \
        sh "${RELEASE_PACKAGES[@]}" || true
    in_root "$1" sh -c 'ceph-osd --version && ceph-mon --version && mke2fs -V && python3 -c "import rados, rbd, ensurepip"'
}

# bring_settings ROOT: how this machine reaches the network and the package indexes, as it is now.
bring_settings() {
    local root=$1
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets' > "$root/etc/apt/apt.conf.d/90machine"
    cp -r /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true  # where the machine has any
}
