"""Networks for runtimes other than torch."""
