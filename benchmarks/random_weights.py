"""``python -m benchmarks.random_weights FILE`` writes a seeded random full VGG16 (528 MB)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.article import save_random_weights

if __name__ == "__main__":
    print(json.dumps({"path": str(save_random_weights(Path(sys.argv[1])))}))
