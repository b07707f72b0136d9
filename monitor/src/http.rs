//! The parts of an HTTP control surface that server, fleet machine and monitor share: bearer authentication, errors as
//! JSON, serving until told to stop, and `/metrics` rendered from a `Sample`.
