"""The benchmarks. The plain ways that they compare with are the tests' too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))
