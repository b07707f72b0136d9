//! What a running program prints, to whoever may not be reading: a pipe that nobody empties must
//! neither hold it up nor keep it from ending.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// For a text to be taken.
const DEADLINE: Duration = Duration::from_secs(1);

/// Prints a text that fits into any pipe that is read.
pub fn print(text: String) {
    if let Err(error) = write(io::stdout(), text) {
        tracing::warn!(event = "stdout_unread", %error, "nobody reads standard output");
    }
}

fn write(mut to: impl Write + Send + 'static, text: String) -> io::Result<()> {
    let (done, outcome) = mpsc::sync_channel(1);
    thread::Builder::new().spawn(move || done.send(to.write_all(text.as_bytes()).and_then(|()| to.flush())))?;
    outcome.recv_timeout(DEADLINE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Prints why a program ends.
pub fn print_error(program: &str, problem: impl Display) {
    // Nobody is left to be told that this cannot be printed.
    write(io::stderr(), format!("{program}: {problem}\n")).ok();
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_given_up() {
        let (mut reader, writer) = io::pipe().unwrap();
        write(writer.try_clone().unwrap(), "read".to_owned()).unwrap();
        let problem = write(writer, "x".repeat(1 << 20)).unwrap_err();
        assert_eq!(problem.kind(), io::ErrorKind::TimedOut);
        let mut text = [0; 4];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"read");
    }
}
