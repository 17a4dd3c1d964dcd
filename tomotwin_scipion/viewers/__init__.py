"""Viewers of the plugin, found by Scipion under the names given here."""

from .viewer_picks import TwinPicksViewer

__all__ = ["TwinPicksViewer"]
