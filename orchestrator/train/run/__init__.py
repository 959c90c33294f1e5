"""Files, view and control of one run of ``ship tune``."""
