//! What was built: one text for `--version` of every program of the family, for `/metrics` and for
//! the manual pages.

/// The family's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Seven digits of the commit; `dev` in a development build, `unknown` where the sources came
/// without git.
pub const COMMIT: &str = env!("HONGBAO_BUILD_COMMIT");

/// The day of the commit, or that of `SOURCE_DATE_EPOCH`; empty where neither is known.
pub const DATE: &str = env!("HONGBAO_BUILD_DATE");

/// After the program's name: `0.1.0 (c6651b4 2026-11-21, release, rustc 1.95.0, x86_64)`.
pub const TEXT: &str = env!("HONGBAO_BUILD");

#[cfg(test)]
#[path = "../../git_head.rs"]
mod git_head;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::git_head::head;
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_text_names_version_commit_profile_compiler_and_target() {
        assert!(TEXT.starts_with(&format!("{VERSION} ({COMMIT}")), "{TEXT}");
        let parts: Vec<_> = TEXT.trim_end_matches(')').split(", ").collect();
        assert_eq!(parts.len(), 4, "{TEXT}");
        assert!(["debug", "release"].contains(&parts[1]) && parts[2].starts_with("rustc 1."), "{TEXT}");
        assert_eq!(parts[3], std::env::consts::ARCH);
        if cfg!(debug_assertions) && option_env!("HONGBAO_COMMIT").is_none() {
            assert_eq!(COMMIT, "dev");
        }
    }

    #[test]
    fn a_commit_is_found_on_a_branch_loose_packed_and_without_one() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!((head(root).commit, head(root).files.len()), (None, 0), "an archive has none");
        write(root, ".git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(head(root).commit, None, "nothing is committed yet");
        write(root, ".git/packed-refs", &format!("# pack-refs with: peeled\n{HASH} refs/heads/main\n"));
        assert_eq!(head(root).commit.as_deref(), Some(HASH));
        let newer = HASH.replace('0', "f");
        write(root, ".git/refs/heads/main", &format!("{newer}\n"));
        assert_eq!(head(root).commit, Some(newer));
        write(root, ".git/HEAD", &format!("{HASH}\n"));
        assert_eq!(head(root).commit.as_deref(), Some(HASH));
        write(root, ".git/HEAD", "something else\n");
        assert_eq!(head(root).commit, None);
    }

    #[test]
    fn a_further_worktree_has_its_own_head_and_the_branches_of_all() {
        let root = tempfile::tempdir().unwrap();
        let (main, tree) = (root.path().join("main"), root.path().join("tree"));
        write(&main, ".git/refs/heads/side", &format!("{HASH}\n"));
        write(&main, ".git/worktrees/tree/HEAD", "ref: refs/heads/side\n");
        write(&main, ".git/worktrees/tree/commondir", "../..\n");
        write(&tree, ".git", &format!("gitdir: {}\n", main.join(".git/worktrees/tree").display()));
        let head = head(&tree);
        assert_eq!(head.commit.as_deref(), Some(HASH));
        assert!(head.files.iter().all(|file| file.exists()) && head.files.len() == 2, "{:?}", head.files);
    }
}
