//! Holds a host's limits against what is wanted of it. Pure: values in, findings out.

pub mod fleet;
mod host;
pub mod server;

/// Memory of the server for one idle, logged-in connection, bytes; measured: 0.9 to 1.0 KiB.
pub const SERVER_BYTES: u64 = 1_024;

/// Memory of a machine for one idle, logged-in user, bytes; measured.
pub const USER_BYTES: u64 = 1_228;

/// Memory of the kernel for one end of an idle connection, bytes; measured: 6.4 KiB for both ends.
pub const KERNEL_BYTES: u64 = 3_277;

/// What the server takes without any connection, with its queues full, bytes.
pub const SERVER_BASE_BYTES: u64 = 128 * 1_024 * 1_024;

/// What a machine takes without any user, bytes: some 10 MB were seen, before users were many.
pub const MACHINE_BASE_BYTES: u64 = 16 * 1_024 * 1_024;

/// Users that connect from one source address, at most.
pub const USERS_PER_ADDRESS_MAX: u64 = 25_000;

/// Above every limit of descriptors that Linux allows, so that sums over tables cannot overflow.
const NOFILE_MAX: u64 = 1 << 31;
