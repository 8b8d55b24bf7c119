"""Tests of the page of `upshot web`."""
