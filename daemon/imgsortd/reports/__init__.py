"""What a person can ask; nothing is written but a sheet."""
