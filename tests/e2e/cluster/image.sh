#!/usr/bin/env bash
# image.sh: makes the product image from prebuilt binaries, without a registry, and writes it as an archive for `cluster load-image`.
#
#   image.sh <folder with bizra-operator and bizra-node> <image name> <archive.tar>
#
# The base is the machine's own Debian, so that the binaries meet the C library they were linked with: a few packages that apt fetches
# (and checks) are unpacked, no more; there is no shell. BASE_IMAGE names another base that buildah can reach.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=${BIZRA_CACHE:-$HOME/.cache/bizra}

fail() { echo "image.sh: $*" >&2; exit 1; }
[[ $# -eq 3 ]] || fail "usage: image.sh <folder with bizra-operator and bizra-node> <image name> <archive.tar>"
binaries=$1 name=$2 archive=$3
for binary in bizra-operator bizra-node; do
    [[ -f $binaries/$binary ]] || fail "no $binary in $binaries; build it with cargo build --release"
done
[[ $name == */*:* ]] || fail "$name has no registry part or no tag; use one like localhost/bizra:dev"
command -v buildah >/dev/null || fail "no buildah; run $here/packages.sh"
[[ $(id -u) -eq 0 ]] || fail "needs root; run this with sudo"
mkdir -p "$cache/image" "$(dirname "$archive")"

# One at a time: buildah's storage and the cached base are shared.
exec 9>"$cache/image/lock"
flock 9

packages=(base-files ca-certificates libc6 libgcc-s1 libstdc++6 netbase tzdata)
recipe=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c 1-16)
key=$(sha256sum "$binaries/bizra-operator" "$binaries/bizra-node" "$root/Dockerfile" | awk '{print $1}' |
    { cat; echo "$recipe $name ${BASE_IMAGE:-}"; } | sha256sum | cut -c 1-32)
if [[ -f $archive && -f $archive.key && $(<"$archive.key") == "$key $(stat -c '%s %Y' "$archive")" ]]; then
    exit 0
fi

log=$cache/image/build.log
: >"$log"
# Storage of its own: the machine's images are not touched. chroot isolation and vfs need neither a kernel module nor a daemon.
buildah=(buildah --root "$cache/image/storage" --runroot "$cache/image/run" --storage-driver vfs)
quietly() { "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "'$1 ${*:2:3} ...' failed; the whole output is in $log"; }; }

work=$(mktemp -d "$cache/image/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# unpack_base FOLDER: the files of the base image.
unpack_base() {
    mkdir "$work/packages"
    # From the package lists of this machine, refreshed only if they are too old to find the files.
    (cd "$work/packages" && { apt-get download "${packages[@]}" || { apt-get update && apt-get download "${packages[@]}"; }; }) >>"$log" 2>&1 ||
        fail "apt-get cannot download ${packages[*]} (see $log); set BASE_IMAGE to a base image that buildah can reach"
    for package in "$work"/packages/*.deb; do
        dpkg-deb --extract "$package" "$1"
    done
    # What the packages' own scripts would do, of which none ran.
    cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"
    printf 'root:x:0:0:root:/:/sbin/nologin\nbizra:x:65532:65532:bizra:/:/sbin/nologin\n' >"$1/etc/passwd"
    printf 'root:x:0:\nbizra:x:65532:\n' >"$1/etc/group"
    mkdir -p "$1/tmp" && chmod 1777 "$1/tmp"
    rm -rf "$1"/usr/share/{doc,info,lintian,locale,man} "$1"/usr/lib/*/gconv "$1"/usr/share/zoneinfo/right
}

base=${BASE_IMAGE:-}
if [[ -z $base ]]; then
    # shellcheck disable=SC1091
    . /etc/os-release
    base=localhost/${ID:-debian}:${VERSION_CODENAME:-base}
    tag=$base-$recipe
    if ! "${buildah[@]}" inspect --type image "$tag" >/dev/null 2>&1; then
        echo "making the base image $base" >&2
        command -v dpkg-deb >/dev/null || fail "not a Debian-like machine; set BASE_IMAGE to a base image that buildah can reach"
        mkdir "$work/base"
        chmod 755 "$work/base"
        unpack_base "$work/base"
        printf 'FROM scratch\nCOPY . /\n' >"$work/base.Dockerfile"
        quietly "${buildah[@]}" bud --isolation chroot --file "$work/base.Dockerfile" --tag "$tag" "$work/base"
        quietly "${buildah[@]}" tag "$tag" "$base"
    fi
    base=$tag
fi

echo "making the image $name" >&2
mkdir -p "$work/context/prebuilt"
for binary in bizra-operator bizra-node; do
    # Symbols stay, for stack traces; what only a debugger reads is most of the size.
    strip --strip-debug -o "$work/context/prebuilt/$binary" "$binaries/$binary" 2>>"$log" ||
        cp "$binaries/$binary" "$work/context/prebuilt/$binary"
    chmod 755 "$work/context/prebuilt/$binary"
done
quietly "${buildah[@]}" bud --isolation chroot --pull=false --file "$root/Dockerfile" --build-arg "BASE_IMAGE=$base" \
    --build-arg BINARIES=prebuilt --timestamp 0 --tag "$name" "$work/context"
rm -f "$archive" "$archive.key"
quietly "${buildah[@]}" push "$name" "docker-archive:$archive.new:$name"
mv "$archive.new" "$archive"
# Older images of the same name only take room; an interrupted build leaves containers that hold them.
"${buildah[@]}" rm --all >>"$log" 2>&1 && "${buildah[@]}" rmi --prune >>"$log" 2>&1 || true
echo "$key $(stat -c '%s %Y' "$archive")" >"$archive.key"
echo "wrote $archive ($(($(stat -c %s "$archive") >> 20)) MiB)" >&2
