//! The node: reconcile loop, container runtimes, network, logs
