//! HTTP clients with reloading credentials and TLS, back-off, rate limits.
