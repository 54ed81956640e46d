"""One module for each outside thing; each turns foreign errors into ours."""
