"""Plain files out of a bundle, for programs and runtimes that know nothing of bundles."""
