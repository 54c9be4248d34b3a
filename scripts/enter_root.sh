#!/usr/bin/env bash
# enter_root.sh ROOT COMMAND...: run the command in ROOT, with this directory as /project. To be the first process of new
# namespaces for mounts and processes: what is mounted here is seen by nobody else, and it reaps what its children leave.
set -euo pipefail
root=$1
shift

# What pip's settings name on this machine: other settings, packages; of an index the directory that it is in, which has its files.
pip_paths() {
    local settings=(/etc/pip.conf /etc/xdg/pip/pip.conf ~/.config/pip/pip.conf ~/.pip/pip.conf "${PIP_CONFIG_FILE:-}")
    local words
    printf '%s\n' "${settings[@]}"
    words=$(cat "${settings[@]}" 2>/dev/null; env | grep '^PIP_') || true
    grep -oP '(^|[\s=])\K/[^\s,]+' <<<"$words" || true
    grep -oP "file://\K/[^\s,]+" <<<"$words" | xargs -r dirname || true
}

# show PATH: the same there as here.
show() {
    if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root$(dirname "$1")"; touch "$root$1"; fi
    mount --bind "$1" "$root$1"
}

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/project"
mount --bind . "$root/project"
for path in $(pip_paths | sort -u); do
    case $path in
        /etc/ssl/*) ;;  # brought already, and not to be mounted upon: the package of certificates moves its files there
        *) [ ! -e "$path" ] || show "$path" ;;
    esac
done

unset TMPDIR CEPH_CONF PYTHONPATH VIRTUAL_ENV
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
status=0
chroot "$root" sh -c 'cd /project && exec "$@"' sh "$@" || status=$?
exit "$status"
