"""Seeing what is wrong: facts from servers, agents and the cluster, and what follows from them."""
