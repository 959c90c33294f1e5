"""Real parts to judge by: a trained backbone, and four data sets of manufacturing."""
