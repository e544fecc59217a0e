"""What the balancer knows and decides, free of any I/O."""
