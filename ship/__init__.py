"""Semantic hierarchical prompt tuning (SHIP) of a frozen timm vision transformer.

Works alone, in a notebook: no cluster, no tracking server, no cloud.
"""
