#!/usr/bin/env bash
# Serves the versions under saved_models/vae with TensorFlow Serving: gRPC on
# port 8500, REST on 8501.
#
# The server is $TENSORFLOW_MODEL_SERVER or tensorflow_model_server where there
# is one, else that of the docker image.
set -euo pipefail
cd "$(dirname "$0")/.."
models="$PWD/saved_models/vae"

fail() {
  echo "ERROR: $*" >&2
  exit 2
}

found=
for path in "$models"/*; do
  name="saved_models/vae/${path##*/}"
  # As the server, which takes names that are 64-bit integers for versions.
  [[ ${path##*/} =~ ^0*[0-9]{1,19}$ ]] || continue
  [[ -d $path ]] ||
    fail "$name: expected a directory, as every version is, received a file."
  [[ -f $path/saved_model.pb ]] ||
    fail "$name: expected a version with a saved_model.pb, received none" \
      "(python export.py writes a whole one)."
  found=$name
done
[[ $found ]] ||
  fail "saved_models/vae: expected an exported version, received none" \
    "(python export.py writes one)."

announce() {
  cat <<'END'
The model will be at http://127.0.0.1:8501/v1/models/vae. A first request:
  curl -s http://127.0.0.1:8501/v1/models/vae:predict -d '{"signature_name": "sample", "instances": [1]}'
END
}

program=${TENSORFLOW_MODEL_SERVER:-tensorflow_model_server}
if server=$(type -P "$program"); then
  cat >&2 <<'END'
WARNING: tensorflow_model_server listens on every address of this machine, and
WARNING: cannot be told to listen on 127.0.0.1 alone. Whoever reaches ports 8500
WARNING: and 8501 can use the model, and tell the server to load another.
WARNING: Nothing is encrypted. Close both ports in the firewall, and let others
WARNING: in through deploy/Caddyfile (docs/serving.md, "For others").
END
  announce
  exec "$server" --port=8500 --rest_api_port=8501 \
    --model_name=vae --model_base_path="$models" \
    --enable_batching=true --batching_parameters_file=deploy/batching.config \
    --monitoring_config_file=deploy/monitoring.config
fi
# Who named a server does not want another one.
[[ -z ${TENSORFLOW_MODEL_SERVER:-} ]] ||
  fail "TENSORFLOW_MODEL_SERVER: expected a program, received" \
    "'$TENSORFLOW_MODEL_SERVER'."

if docker info >/dev/null 2>&1; then
  docker compose version >/dev/null 2>&1 ||
    fail "docker: expected its plugin compose, received none" \
      "(https://docs.docker.com/compose/install)."
  announce
  exec docker compose -f deploy/docker-compose.yml up
fi

echo "ERROR: expected tensorflow_model_server or a running docker, received" \
  "neither. Install one of them:" >&2
cat >&2 <<'END'
  Debian, Ubuntu (amd64): package tensorflow-model-server, whose repository is
    set up as https://www.tensorflow.org/tfx/serving/setup says
  anything else: https://docs.docker.com/engine/install, with compose; the
    image is tensorflow/serving:2.20.0, for amd64 alone
Without a server, the client runs the bundle itself:
  python -m vae_tf.serving.client sample --url bundle:saved_models/vae --n 16
END
exit 2
