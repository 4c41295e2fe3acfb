"""Instances as Ray actors: setup, the loop inside an actor, its shadow outside, migrations by remote calls (week 7)."""
