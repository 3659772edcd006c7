"""Reports as pages: one self-contained HTML file per report."""

from .html import render, write

__all__ = ["render", "write"]
