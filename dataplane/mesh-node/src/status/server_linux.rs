//! The status socket: a Unix socket, mode 0600, in a directory that only its owner can enter.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::imp;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the asking side says; other questions may come later.
const QUESTION: &[u8] = b"status\n";
/// Longest answer read, in bytes: 65,535 namespaces with a hundred bytes each, and members.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Answers `status` until it is dropped; then its socket is gone.
#[derive(Debug)]
pub struct StatusServer {
    path: PathBuf,
}

impl StatusServer {
    /// Serves under `NAME.sock` in the first of the runtime directories that can be had; `report` makes an answer.
    pub fn start(name: &str, report: impl Fn() -> String + Send + 'static) -> io::Result<Self> {
        Self::start_in(&imp::runtime_directories(), name, report)
    }

    fn start_in(directories: &[PathBuf], name: &str, report: impl Fn() -> String + Send + 'static) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "no runtime directory (set RUNTIME_DIRECTORY)");
        for directory in directories {
            match listen(directory, name) {
                Ok((listener, path)) => {
                    thread::Builder::new().name("mesh-status".into()).spawn(move || serve(&listener, &report))?;
                    return Ok(Self { path });
                }
                Err(error) => refused = io::Error::new(error.kind(), format!("{}: {error}", directory.display())),
            }
        }
        Err(refused)
    }

    /// Ends it: the socket is gone when this returns.
    pub fn end(self) {
        drop(self);
    }

    /// The file that stays if the process ends without dropping this.
    pub fn remnant(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(directory: &Path, name: &str) -> io::Result<(UnixListener, PathBuf)> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut path = directory.join(format!("{name}.sock"));
    if path.exists() {
        if UnixStream::connect(&path).is_ok() {
            // A program of the same name lives (in another network namespace): both keep a name.
            path = directory.join(format!("{name}-{}.sock", std::process::id()));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, path))
}

fn serve(listener: &UnixListener, report: &dyn Fn() -> String) {
    for client in listener.incoming() {
        let served = client.and_then(|client| answer(client, report));
        if let Err(error) = served {
            tracing::debug!(%error, "a question for the status was not answered");
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                // No descriptor is free: the same failure comes back at once, and nothing else tells when one is.
                #[expect(clippy::disallowed_methods, reason = "there is nothing to wait for but time")]
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn answer(mut client: UnixStream, report: &dyn Fn() -> String) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut question = [0; QUESTION.len()];
    client.read_exact(&mut question)?;
    if question != QUESTION {
        return client.write_all(b"{\"error\":\"unknown question\"}");
    }
    client.write_all(report().as_bytes())
}

/// Asks every running program whose socket is called `PROGRAM-*.sock`.
pub(super) fn ask_all(program: &str) -> anyhow::Result<Vec<String>> {
    ask_all_in(&imp::runtime_directories(), program)
}

fn ask_all_in(directories: &[PathBuf], program: &str) -> anyhow::Result<Vec<String>> {
    let mut answers = Vec::new();
    let mut forbidden = None;
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                forbidden = forbidden.or((error.kind() == io::ErrorKind::PermissionDenied).then(|| directory.clone()));
                continue;
            }
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(program).is_some_and(|rest| rest.starts_with('-')) && name.ends_with(".sock")
        });
        paths.sort();
        for path in paths {
            match UnixStream::connect(&path) {
                Ok(server) => {
                    answers.push(ask(server).with_context(|| format!("no answer on {}: try again", path.display()))?)
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => forbidden = Some(path),
                // Left behind by a program that was killed.
                Err(_) => {}
            }
        }
    }
    match forbidden {
        Some(path) if answers.is_empty() => {
            bail!("not allowed to look into {}: ask as the user that runs the {program} (sudo)", path.display())
        }
        _ => Ok(answers),
    }
}

fn ask(mut server: UnixStream) -> io::Result<String> {
    server.set_read_timeout(Some(PATIENCE))?;
    server.set_write_timeout(Some(PATIENCE))?;
    server.write_all(QUESTION)?;
    let mut answer = String::new();
    server.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_the_socket_is_private_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/proc/nowhere"), directory.path().join("run")];
        let server = StatusServer::start_in(&places, "gateway-mesh0", || "{\"pid\":1}".into()).unwrap();
        assert_eq!(fs::metadata(&server.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&places[1]).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(ask_all_in(&places, "gateway").unwrap(), ["{\"pid\":1}"]);
        assert!(ask_all_in(&places, "gate").unwrap().is_empty() && ask_all_in(&places, "transfer").unwrap().is_empty());
        let path = server.path.clone();
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn two_programs_of_one_name_both_answer_and_a_dead_ones_name_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let places = [directory.path().to_owned()];
        drop(UnixListener::bind(directory.path().join("gateway-mesh0.sock")).unwrap());
        let one = StatusServer::start_in(&places, "gateway-mesh0", || "1".into()).unwrap();
        assert_eq!(one.path, directory.path().join("gateway-mesh0.sock"));
        let two = StatusServer::start_in(&places, "gateway-mesh0", || "2".into()).unwrap();
        let mut answers = ask_all_in(&places, "gateway").unwrap();
        answers.sort();
        assert_eq!(answers, ["1", "2"]);
        drop((one, two));
    }

    #[test]
    fn another_question_is_refused_and_a_silent_client_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let places = [directory.path().to_owned()];
        let server = StatusServer::start_in(&places, "transfer-8000", || "x".into()).unwrap();
        let mut client = UnixStream::connect(&server.path).unwrap();
        client.write_all(b"secret\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "{\"error\":\"unknown question\"}");
        drop(UnixStream::connect(&server.path).unwrap());
        assert_eq!(ask_all_in(&places, "transfer").unwrap(), ["x"]);
    }
}
