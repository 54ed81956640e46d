"""What clusters are, and how a fit finds them."""
