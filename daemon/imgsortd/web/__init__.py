"""A local web page over the library: it reads the store and leaves requests for the daemon."""
