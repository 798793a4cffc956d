//! One module per controller, and the Leader that starts and stops them all
