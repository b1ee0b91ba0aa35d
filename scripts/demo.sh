#!/usr/bin/env bash
# The main job on sample volumes, below a fresh temporary directory: back up two volumes while one is
# being written to, change them, back up again, restore, compare. Prints what it does; ends with 'identical'.
set -euo pipefail
holdfast=$(realpath "${1:?path of the holdfast binary}")
work=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-demo.XXXXXX")
writer=
cleanup() { [ -z "$writer" ] || kill "$writer" 2>/dev/null || true; chmod -R u+rwX "$work" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
export XDG_STATE_HOME=$work/state XDG_CONFIG_HOME=$work/config HOLDFAST_REPO=$work/repo
export HOLDFAST_KEY_FILE=$work/config/demo.key HOLDFAST_STATE_DIR=$work/state
unset HOLDFAST_COORDINATOR HOLDFAST_PASSPHRASE_FILE
say() { printf '\n== %s\n' "$*"; }
run() { printf '$ holdfast %s\n' "$*" | sed "s|$work/||g"; "$holdfast" "$@"; }

say "two volumes: web (5,000 small files) and db (a 64 MiB database file with a writer at work)"
mkdir -p "$work/web" "$work/db"
for d in $(seq 1 50); do
  mkdir -p "$work/web/site$d"
  for f in $(seq 1 100); do printf 'page %s of site %s, %s\n' "$f" "$d" "$RANDOM" > "$work/web/site$d/page$f.html"; done
done
ln -s site1/page1.html "$work/web/index.html"
ln "$work/web/site1/page2.html" "$work/web/linked.html"
touch -d 2020-02-20 "$work/web/site1/page3.html"
chmod 0640 "$work/web/site1/page4.html"
mkfifo "$work/web/pipe"
head -c 64M /dev/urandom > "$work/db/main.db"
truncate -s 1G "$work/db/sparse.img"
( i=0; while :; do
    printf 'transaction %08d\n' "$i" | dd of="$work/db/main.db" bs=1 seek=$((i % 1000 * 65536)) conv=notrunc status=none
    i=$((i + 1)); sleep 0.05
  done ) & writer=$!

say "first backup: the repository and its key are created on the way"
run backup "$work/web" --name web
code=0; run backup "$work/db" --name db || code=$?
if [ "$code" = 3 ]; then echo "(exit 3: main.db changed while it was read, and the snapshot says so)"; elif [ "$code" != 0 ]; then exit "$code"; fi

say "changes: 100 files rewritten, 50 removed, one renamed; the writer stops"
for f in $(seq 1 100); do echo "new text $f" > "$work/web/site7/page$f.html"; done
rm "$work/web/site8/"page{1..50}.html
mv "$work/web/site9/page1.html" "$work/web/site9/renamed.html"
kill "$writer"; wait "$writer" 2>/dev/null || true; writer=

say "second backup: only what changed is sent"
run backup "$work/web" --name web
run backup "$work/db" --name db
run snapshots

say "restore the newest of both, and compare: names, bytes, owners, permissions, times, links"
run restore web@latest --target "$work/restored-web"
run restore db@latest --target "$work/restored-db"
listing() { (cd "$1" && find . -printf '%p %y %m %U %G %s %T@ %l %n\n' | awk '{ if ($2 == "d") $6 = "-"; print }' | LC_ALL=C sort); }
for volume in web db; do
  diff <(listing "$work/$volume") <(listing "$work/restored-$volume")
  (cd "$work/$volume" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) > "$work/sums"
  (cd "$work/restored-$volume" && sha256sum --quiet --check "$work/sums")
  echo "$volume: identical"
done
echo
echo "identical"
