//! Which commit is checked out, read from git's files: for the build script, and for the tests of
//! it. A tree without git, an unpacked archive, has none.

use std::fs;
use std::path::{Path, PathBuf};

/// What is checked out.
#[derive(Debug, Default)]
pub struct Head {
    /// The commit's full hash, if it can be found.
    pub commit: Option<String>,
    /// Files that exist and change when it does.
    pub files: Vec<PathBuf>,
}

/// Of the tree at `root` itself, never of one that it may lie in.
pub fn head(root: &Path) -> Head {
    let mut head = Head::default();
    let Some(own) = git_directory(root) else { return head };
    // A further worktree has its own HEAD and shares the branches with the others.
    let shared = match fs::read_to_string(own.join("commondir")) {
        Ok(path) => own.join(path.trim_end()),
        Err(_) => own.clone(),
    };
    let at = own.join("HEAD");
    let Ok(text) = fs::read_to_string(&at) else { return head };
    // A commit on a branch whose hash is packed makes a new file; the log of HEAD grows with any.
    head.files.extend([at, own.join("logs/HEAD")]);
    head.commit = match text.trim_end().strip_prefix("ref: ") {
        None => Some(text.trim_end().to_owned()),
        Some(branch) => {
            let packed = shared.join("packed-refs");
            let loose = fs::read_to_string(shared.join(branch)).ok().map(|hash| hash.trim_end().to_owned());
            head.files.extend([shared.join(branch), packed.clone()]);
            loose.or_else(|| {
                let packed = fs::read_to_string(packed).ok()?;
                let found = packed.lines().filter_map(|line| line.split_once(' ')).find(|(_, name)| *name == branch);
                found.map(|(hash, _)| hash.to_owned())
            })
        }
    };
    head.commit = head.commit.filter(|hash| hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    // One that is not there would have cargo run the build script every time.
    head.files.retain(|file| file.exists());
    head
}

fn git_directory(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    Some(root.join(text.strip_prefix("gitdir: ")?.trim_end()))
}
