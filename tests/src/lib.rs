//! End-to-end tests: real processes, real Docker. See `tests/`: t10 is the basics, t20 the
//! layers of the code, t30 masters, t40 nodes, t50 what users run, t60 what goes wrong.
