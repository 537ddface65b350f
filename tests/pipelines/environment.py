"""The environment with kfp (scripts/kfp.sh), which has to be apart from that of the tests."""

import functools
import hashlib
import os
import subprocess
from pathlib import Path

from tests.conftest import ROOT, needs

CACHE = Path(os.environ.get("EHRMIND_TEST_TOOLS") or Path.home() / ".cache" / "ehrmind" / "test-tools")
PYTHON = str(CACHE / f"kfp-{hashlib.sha256((ROOT / 'pipelines' / 'requirements.txt').read_bytes()).hexdigest()[:12]}" / "bin" / "python")


@functools.cache
def needed() -> None:
    """Make it if it is not there yet; skip the test where it cannot be had."""
    done = subprocess.run([ROOT / "scripts" / "kfp.sh", "--version"], capture_output=True, text=True)
    needs("kfp", f"run scripts/kfp.sh --version, which says: {done.stderr.strip()[-200:]}", there=done.returncode == 0)
