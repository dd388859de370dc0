"""Tests of artifact/."""
