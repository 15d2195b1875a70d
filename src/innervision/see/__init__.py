"""What a network holds, shown: what its layers answer to a picture."""
