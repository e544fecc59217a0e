"""What two or more services share: settings, errors, life cycle, interceptors, telemetry."""
