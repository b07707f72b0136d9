//! What a file system has left. A figure that cannot be had is absent: reporting must not fail for
//! it.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Bytes that the file system of `path` has left for processes without privileges.
pub fn free_bytes(path: &Path) -> Option<u64> {
    // One without blocks, as /sys, has no room to speak of.
    let file_system = statvfs(path).ok().filter(|file_system| file_system.blocks() > 0)?;
    Some(file_system.blocks_available().saturating_mul(file_system.fragment_size()))
}

/// Bytes of one file, 0 where there is none.
pub fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_what_does_not_exist_has_no_figure() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free_bytes(directory.path()).is_some_and(|free| free > 0));
        assert_eq!(free_bytes(&directory.path().join("nothing")), None);
        let file = directory.path().join("file");
        assert_eq!(file_bytes(&file), 0);
        fs::write(&file, [0; 77]).unwrap();
        assert_eq!(file_bytes(&file), 77);
    }
}
