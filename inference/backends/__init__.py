"""Adapters that execute a batch on one engine. A backend states facts about itself; nobody asks what it is."""
