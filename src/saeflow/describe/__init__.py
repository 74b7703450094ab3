"""What there is to say of files and of whole studies."""
