"""CMU-MOSEI, CMU-MOSI and CH-SIMS: what the forms in which they circulate have in common."""
