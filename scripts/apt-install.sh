#!/bin/sh
# Install Debian packages, and start none of the system services they bring.
#
#     scripts/apt-install.sh PACKAGE...
#
# Debian starts a service as soon as its package is installed, unless /usr/sbin/policy-rc.d
# says 101. This puts such a file there for the time of the installation, puts back what was
# there before, and disables what was newly installed, so that the next boot starts nothing
# either. Services that were installed already are left as they are.
# Exit code 1: there is no apt, or no right to use it; the line to run by hand is printed.
set -eu

policy=/usr/sbin/policy-rc.d
saved=$policy.before-upshot

if ! command -v apt-get >/dev/null 2>&1; then
    echo "no apt-get here; install with your package manager what Debian calls: $*" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=sudo
else
    echo "not root and no sudo; ask somebody to run: apt-get install $*" >&2
    exit 1
fi

restore_policy() {
    $as_root rm -f "$policy"
    if [ -e "$saved" ]; then $as_root mv "$saved" "$policy"; fi
}

services_present() { # every service that packages have brought, for systemd and for SysV init
    (cd /lib/systemd/system 2>/dev/null && ls -- *.service *.socket 2>/dev/null) || true
    ls /etc/init.d 2>/dev/null || true
}

disable() {
    case $1 in
    *.service | *.socket) $as_root systemctl --quiet disable "$1" ;;
    *) $as_root update-rc.d "$1" disable ;;
    esac >/dev/null 2>&1 || true # there may be no systemd here, and some units are static
}

# `saved` is there already only when an earlier run was killed half-way.
if [ -e "$policy" ] && [ ! -e "$saved" ]; then $as_root mv "$policy" "$saved"; fi
trap restore_policy EXIT
trap 'exit 130' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
$as_root chmod 755 "$policy"

before=$(services_present | tr '\n' ' ')
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --quiet --no-install-recommends "$@" </dev/null
}
# The package lists of a fresh machine are empty or old.
install "$@" >/dev/null 2>&1 || { $as_root apt-get update --quiet && install "$@"; }

for service in $(services_present); do
    case " $before " in
    *" $service "*) ;;
    *) disable "$service" ;;
    esac
done
