"""What watches the services: thresholds, rules of Prometheus, dashboards, and their checks."""
