//! Leader-following gRPC client with retry and watch-resume
