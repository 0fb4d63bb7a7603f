"""Boxes that share a gallery, by way of NATS JetStream: the link, what boxes tell each other, and how a box joins.

`nats` is imported in here alone, and only by a box that has joined a fleet.
"""
