"""What tests of several kinds use: a served control plane, engines, tenants, recordings."""
