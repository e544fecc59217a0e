"""Generators and checks that belong to the repository, not to the product."""
