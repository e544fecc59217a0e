"""How pannier is run: on one machine (`deploy.local`) and elsewhere."""
