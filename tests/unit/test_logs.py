"""Events are lines, whoever writes beside."""

import json
import subprocess
import sys

THREADS = """
import sys, threading
from ehrmind_k8s import logs
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=lambda: [logs.event("tick", number=i) for i in range(500)]) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


def test_events_of_several_threads_are_a_line_each() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["tick"] * 4000
