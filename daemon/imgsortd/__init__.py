"""imgsortd: the image inbox that sorts itself."""

import os

__version__ = "0.1.0"

# pydantic looks for plugins among all installed packages each time it is imported. There are
# none for us, and `status` has its answer in the time that takes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
