"""What kernel and systemd offer; knows no picture."""
