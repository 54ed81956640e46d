"""``python -m imgsortd`` is the command line."""

from imgsortd.cli import main

main()
