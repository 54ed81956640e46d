"""From one fit to the next: due, proposed, decided."""
