#!/usr/bin/env bash
# `npm run loadtest:peers`: what the peers of the load test need. Node package: 35 MB to fetch; llama.cpp: 77
# MB, and a build.
set -euo pipefail
case "${1-}" in
  "") ;;
  -h | --help)
    echo "npm run loadtest:peers"
    echo "Install the servers that the load test compares with."
    exit 0
    ;;
  *)
    echo "npm run loadtest:peers: takes no arguments, not $1; --help shows what it does" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/../../.."

# Not in package.json, because only the load test needs it. It uses the installed onnxruntime-node.
npm install --no-save --no-audit --no-fund @huggingface/transformers@4.3.1

# llama.cpp's server, from the source that its Python package carries; without its page, which would be
# fetched.
peers=${XDG_CACHE_HOME:-$HOME/.cache}/didi-serve/peers
version=0.3.36
mkdir -p "$peers"
if [ ! -d "$peers/venv" ]; then
  python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet gguf==0.19.0 safetensors==0.8.0
fi
if [ ! -x "$peers/llama-server" ]; then
  if [ ! -d "$peers/llama_cpp_python-$version" ]; then
    "$peers/venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python --dest "$peers" "llama-cpp-python==$version"
    tar xzf "$peers/llama_cpp_python-$version.tar.gz" -C "$peers"
  fi
  cmake -S "$peers/llama_cpp_python-$version/vendor/llama.cpp" -B "$peers/build" -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DGGML_NATIVE=ON
  cmake --build "$peers/build" --target llama-server --parallel "$(getconf _NPROCESSORS_ONLN)"
  cp "$peers/build/bin/llama-server" "$peers/llama-server"
fi
"$peers/llama-server" --version
