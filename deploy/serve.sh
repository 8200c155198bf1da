#!/usr/bin/env bash
# Serves the versions under saved_models/vae with TensorFlow Serving: gRPC on
# port 8500, REST on 8501.
#
# The server is $TENSORFLOW_MODEL_SERVER or tensorflow_model_server where there
# is one, else that of the docker image.
set -euo pipefail
cd "$(dirname "$0")/.."
models="$PWD/saved_models/vae"

if ! ls "$models" 2>/dev/null | grep -Eqx '[0-9]+'; then
  echo "ERROR: saved_models/vae: expected an exported version, received none" \
    "(python export.py writes one)." >&2
  exit 2
fi

if server=$(command -v "${TENSORFLOW_MODEL_SERVER:-tensorflow_model_server}"); then
  exec "$server" --port=8500 --rest_api_port=8501 \
    --model_name=vae --model_base_path="$models" \
    --enable_batching=true --batching_parameters_file=deploy/batching.config \
    --monitoring_config_file=deploy/monitoring.config
fi

if docker info >/dev/null 2>&1; then
  exec docker compose -f deploy/docker-compose.yml up
fi

echo "ERROR: expected tensorflow_model_server or a running docker, received" \
  "neither. Install one of them:" >&2
cat >&2 <<'END'
  Debian, Ubuntu (amd64): package tensorflow-model-server, whose repository is
    set up as https://www.tensorflow.org/tfx/serving/setup says
  anything else: https://docs.docker.com/engine/install, with compose; the
    image is tensorflow/serving:2.20.0
END
exit 2
