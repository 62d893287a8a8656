"""What is known of this host: processors, versions, what was fastest, what it keeps."""
