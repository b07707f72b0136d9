//! What operators put around the programs: Prometheus, a service manager, manual pages, an
//! installation. The real tools judge (`scripts/test` installs them), against the real programs
//! running together.

mod documented;
mod family;
mod installed;
mod manual;
mod prometheus;
mod service;
mod units;
