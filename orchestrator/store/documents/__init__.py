"""The JSON objects of a store: their values, and the strict models that they are read by."""
