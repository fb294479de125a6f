#!/bin/sh
# Run the device check that receive.sh put together.
#   sh check.sh FOLDER RESULTS [FLAG ...]     FLAGs go to the check: --help lists them
# `--device cuda` fails at once where CUDA does not load; without it the check then runs on the CPU.
# Writes doctor.json, device-check.md and device-check.json to RESULTS. DIDI_PYTHON names a Python with
# PyTorch (default: python3), with which the speed is compared.
set -eu
app=${1:?folder that receive.sh wrote to}/app results=${2:?folder of the results}
shift 2
python=${DIDI_PYTHON:-python3}

# The CUDA libraries of Python's packages, or those of the system, serve where the archive holds none.
libraries=$("$python" - 2>/dev/null <<'END' || true
import glob, nvidia
print(":".join(sorted(path for root in nvidia.__path__ for path in glob.glob(root + "/*/lib"))))
END
)
[ ! -d /usr/local/cuda/lib64 ] || libraries=${libraries:+$libraries:}/usr/local/cuda/lib64
if [ -n "$libraries" ]; then
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries"
fi

random=none
for folder in "$app"/models/random-*; do
  [ ! -d "$folder" ] || random=$folder
done
mkdir -p "$results"
"$app/bin/node" "$app/src/main.js" doctor --json >"$results/doctor.json" || true
exec "$app/bin/node" "$app/loadtest/device/main.js" \
  --python "$python" --random "$random" --out "$results" "$@"
