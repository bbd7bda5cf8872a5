"""What engines and the host stand on: accounts, files, locks, layout, bundles' programs."""
