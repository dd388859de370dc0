"""Programs behind the Makefile. What runs before an environment exists imports nothing from here."""
