//! Where a process finds the family's secret: a file or the environment, never the command line.
//!
//! Arguments of a process are readable by every user of the host, and end up in shell histories and
//! service logs.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hongbao_proto::token::{Secret, TokenError};

/// Environment variable that holds the path of the secret's file.
pub const SECRET_FILE_VARIABLE: &str = "HONGBAO_SECRET_FILE";

/// Environment variable that holds the secret itself.
pub const SECRET_VARIABLE: &str = "HONGBAO_SECRET";

/// Bytes that a secret's file may have at most; anything longer is a wrong path.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why there is no secret. Each message is one line and names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Neither a file nor the environment names a secret.
    #[error(
        "no secret: give its file, or set {SECRET_FILE_VARIABLE} or {SECRET_VARIABLE} (make one with `hongbao-server secret > FILE`)"
    )]
    Missing,
    /// The file cannot be read.
    #[error("secret file {path}: {source} (make one with `hongbao-server secret > FILE`)")]
    Unreadable {
        /// The file, as given.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was found is no secret.
    #[error("secret from {origin}: {source}")]
    Unusable {
        /// The file or the variable.
        origin: String,
        source: TokenError,
    },
}

/// The family's secret, from `file` if given, else from the file that `HONGBAO_SECRET_FILE` names,
/// else from the text of `HONGBAO_SECRET`.
pub fn load_secret(file: Option<&Path>) -> Result<Secret, CredentialError> {
    from_sources(file, std::env::var_os(SECRET_FILE_VARIABLE), std::env::var_os(SECRET_VARIABLE))
}

fn from_sources(
    file: Option<&Path>,
    named: Option<OsString>,
    text: Option<OsString>,
) -> Result<Secret, CredentialError> {
    // An empty variable is how a shell or a service file says "not set".
    let named = named.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = file.map(Path::to_path_buf).or(named) {
        return from_file(&path);
    }
    let text = text.filter(|value| !value.is_empty()).ok_or(CredentialError::Missing)?;
    Secret::from_text(&text.to_string_lossy())
        .map_err(|source| CredentialError::Unusable { origin: SECRET_VARIABLE.to_owned(), source })
}

fn from_file(path: &Path) -> Result<Secret, CredentialError> {
    let unreadable = |source| CredentialError::Unreadable { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > SECRET_FILE_BYTES_MAX {
        let problem = format!("{} bytes are too many for a secret", metadata.len());
        return Err(unreadable(std::io::Error::other(problem)));
    }
    let mode = metadata.permissions().mode();
    // A pipe or a descriptor of the shell (`<(..)`) has no meaningful mode.
    if metadata.is_file() && mode & 0o077 != 0 {
        tracing::warn!(
            event = "secret_exposed",
            path = %path.display(),
            mode = format_args!("{:03o}", mode & 0o777),
            "the secret file can be read by others; `chmod 600` it"
        );
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Secret::from_text(&text).map_err(|source| CredentialError::Unusable { origin: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn message(result: Result<Secret, CredentialError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_given_file_wins_over_the_environment() {
        let good = file(&format!("{TEXT}\n"));
        assert!(from_sources(Some(good.path()), Some("/nonexistent".into()), Some("short".into())).is_ok());
        assert!(from_sources(None, Some(good.path().into()), Some("short".into())).is_ok());
        assert!(from_sources(None, None, Some(TEXT.into())).is_ok());
    }

    #[test]
    fn every_failure_is_one_line_that_names_the_remedy() {
        let short = file("short");
        let failures = [
            from_sources(None, None, None),
            from_sources(None, Some(OsString::new()), Some(OsString::new())),
            from_sources(Some(Path::new("/nonexistent/secret")), None, Some(TEXT.into())),
            from_sources(Some(short.path()), None, Some(TEXT.into())),
            from_sources(None, None, Some("short".into())),
        ];
        for failure in failures {
            let text = message(failure);
            assert!(text.contains("hongbao-server secret"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert!(message(from_sources(Some(short.path()), None, None)).contains(&short.path().display().to_string()));
    }
}
