//! Everything that reaches a master over the network
