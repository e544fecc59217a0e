"""How the balancer reaches the world outside."""
