"""What stands between socket and models is not there before it is asked for: models load meanwhile."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import service.server
early = [name for name in ("fastapi", "uvicorn") if name in sys.modules]
import service.front
print(early, [name for name in ("fastapi", "uvicorn") if name in sys.modules])
"""


def test_a_start_imports_what_answers_only_once_models_can_load() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['fastapi', 'uvicorn']"
