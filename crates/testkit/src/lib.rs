//! Local clusters of real processes, test hosts, fault injection
