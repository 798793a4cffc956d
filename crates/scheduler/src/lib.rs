//! Pure filter, score and explain, and the loop that binds
