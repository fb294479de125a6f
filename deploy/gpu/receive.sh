#!/bin/sh
# Take pieces that `npm run device-pack` wrote; once all have come, put them together.
#   sh receive.sh FROM TO
# FROM holds SHA256SUMS and some of the pieces. Needs tar, sha256sum, and xz or Python 3. A piece that came
# damaged is refused and must be sent again. TO/app is what check.sh runs.
set -eu
from=${1:?folder of the pieces} to=${2:?folder to put them together in}
mkdir -p "$to/pieces"
cp "$from/SHA256SUMS" "$to/pieces/SHA256SUMS"
for piece in "$from"/app.tar.xz.*; do
  [ -f "$piece" ] || continue
  cp "$piece" "$to/pieces/part"
  mv "$to/pieces/part" "$to/pieces/${piece##*/}"
done
cd "$to/pieces"

missing= damaged= names=
while read -r sum name; do
  names="$names $name"
  if [ ! -f "$name" ]; then
    missing="$missing $name"
  elif ! echo "$sum  $name" | sha256sum -c --status -; then
    rm "$name"
    damaged="$damaged $name"
  fi
done <SHA256SUMS
if [ -n "$damaged" ]; then
  echo "receive.sh: damaged, send again:$damaged" >&2
  exit 1
fi
if [ -n "$missing" ]; then
  echo "still missing:$missing"
  exit 0
fi

rm -rf ../new && mkdir ../new
if command -v xz >/dev/null; then
  # shellcheck disable=SC2086 # the names have no blanks
  cat $names | xz -dcT0 | tar -xf - -C ../new
else
  # shellcheck disable=SC2086
  cat $names | python3 -c 'import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall("../new", filter="data")'
fi
rm -rf ../app && mv ../new/app ../app && rmdir ../new
cd .. && rm -r pieces
echo "complete: $to/app"
