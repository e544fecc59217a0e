"""What it costs to see: the same services with and without their telemetry."""
