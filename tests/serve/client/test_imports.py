from __future__ import annotations

import subprocess
import sys

from serve.answers import limits
from serve.client import recommender

PROGRAM = """
import sys

for name in ("click", "distill", "export", "faiss", "numpy", "onnxruntime", "prometheus_client", "scipy", "torch"):
    sys.modules[name] = None

from serve.client import AdminClient, RecommenderClient, ServerUnavailable

for client in (RecommenderClient("127.0.0.1:9", timeout=0.2), AdminClient("127.0.0.1:9", timeout=0.2)):
    with client:
        try:
            client.info() if isinstance(client, RecommenderClient) else client.models()
        except Exception as error:
            print(type(error).__name__)
print(*sorted(name for name in sys.modules if name.split(".")[0] == "serve"))
"""


def test_the_clients_work_where_no_model_library_and_no_numpy_is_installed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *outcomes, loaded = done.stdout.splitlines()
    assert len(outcomes) == 2
    assert set(outcomes) <= {"ServerUnavailable", "TimeUp"}
    foreign = [name for name in loaded.split() if not ("serve.client." in name + "." or "serve.rpc.pb." in name + ".")]
    assert foreign == ["serve", "serve.rpc"], "the SDK imports the generated code and nothing else of this project"


def test_a_client_accepts_the_largest_answer_of_a_server() -> None:
    assert recommender.MAX_ANSWER_BYTES == limits.MAX_ANSWER_BYTES
