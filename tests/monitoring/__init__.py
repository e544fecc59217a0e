"""A whole suite under traffic and faults, for whoever looks at what it shows of itself."""
