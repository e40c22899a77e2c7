"""What happened in the last minutes and hours, as pictures and plain sentences."""
