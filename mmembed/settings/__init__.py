"""What users set on the command line. No file here imports torch, so that help appears at once."""
