#!/bin/sh
# Puts Prometheus, promtool, Alertmanager and amtool where the tests find them: Debian's packages,
# unpacked into a folder. Needs no root, starts nothing, and leaves what is on PATH alone.
#
#     tools/monitoring/install.sh [FOLDER]        FOLDER is .venv/monitoring where not given
set -eu

folder=${1:-.venv/monitoring}

say() { echo "monitoring: $*"; }
fail() {
    echo "monitoring: $*" >&2
    echo "monitoring: put prometheus, promtool, alertmanager and amtool on PATH instead" >&2
    exit 1
}
runs() { "$1" --version >/dev/null 2>&1; }

# Debian calls it prometheus-alertmanager, its makers alertmanager.
if runs prometheus && runs promtool && runs amtool \
    && { runs alertmanager || runs prometheus-alertmanager; }; then
    say "on PATH already"
    exit 0
fi
if runs "$folder/bin/prometheus" && runs "$folder/bin/promtool" \
    && runs "$folder/bin/alertmanager" && runs "$folder/bin/amtool"; then
    say "in $folder already"
    exit 0
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    || fail "this is no Debian or Ubuntu, whose packages would be unpacked"

mkdir -p "$folder/bin" || fail "$folder cannot be made"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

# apt would drop to a user of its own, who cannot write here.
apt() { apt-get --quiet --option APT::Sandbox::User="$(id -un)" "$@"; }
own_lists() {
    apt --option Dir::State::Lists="$work/lists" --option Dir::Cache="$work/cache" "$@"
}
packages="prometheus prometheus-alertmanager"

cd "$work"
say "downloading Debian's packages: $packages"
# shellcheck disable=SC2086 # two words
if ! apt download $packages >"$work/log" 2>&1; then
    say "the lists of packages are missing or old, reading new ones"
    own_lists update >"$work/log" 2>&1 && own_lists download $packages >>"$work/log" 2>&1 || {
        tail -n 5 "$work/log" >&2
        fail "the packages could not be downloaded"
    }
fi

for package in ./*.deb; do
    dpkg-deb --extract "$package" "$work/unpacked" || fail "$package cannot be unpacked"
done
programs="$work/unpacked/usr/bin"

# Debian's Alertmanager reads its default templates below /usr/share. This copy, which need not be
# root's, reads them below the folder that it is started in; the path must keep its length.
for program in amtool prometheus-alertmanager; do
    LC_ALL=C sed 's#/usr/share/prometheus/alertmanager#././/share/prometheus/alertmanager#g' \
        "$programs/$program" >"$work/$program"
    cp "$work/$program" "$programs/$program"
done
mkdir -p "$folder/share/prometheus/alertmanager"
cp "$work"/unpacked/usr/share/prometheus/alertmanager/*.tmpl "$folder/share/prometheus/alertmanager/"
mv "$programs/prometheus-alertmanager" "$programs/alertmanager"
for program in prometheus promtool alertmanager amtool; do
    mv "$programs/$program" "$folder/bin/$program"
    runs "$folder/bin/$program" || fail "$folder/bin/$program does not run on this machine"
done
say "in $folder: $("$folder/bin/prometheus" --version 2>&1 | head -n 1 | cut -d '(' -f 1)," \
    "$("$folder/bin/alertmanager" --version 2>&1 | head -n 1 | cut -d '(' -f 1)"
