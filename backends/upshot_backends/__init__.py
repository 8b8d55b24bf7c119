"""One folder per service: its result backend in `results`, its broker in `broker`.

Nothing is imported from here by hand: `upshot.registry` finds a service by URL scheme, through the
same entry points that a third party uses.
"""
