"""imgsortd: the image inbox that sorts itself."""

__version__ = "0.1.0"
