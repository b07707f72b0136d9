//! Where a process finds the family's secret: a file or the environment, never the command line.
