"""The audit log: its entries, search, and verification."""
